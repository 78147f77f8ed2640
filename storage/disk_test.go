package storage_test

import (
	"context"
	"errors"
	"io"
	"io/fs"
	"os"
	"path/filepath"
	"slices"
	"strings"
	"testing"

	"balcony/storage"
)

func disk(t *testing.T, dir string) *storage.Disk {
	t.Helper()
	d, err := storage.OpenDisk(dir)
	if err != nil {
		t.Fatal(err)
	}
	t.Cleanup(func() {
		if err := d.Close(); err != nil {
			t.Error(err)
		}
	})
	return d
}

// files are the regular files below dir.
func files(t *testing.T, dir string) (names []string) {
	t.Helper()
	if err := filepath.WalkDir(dir, func(path string, e fs.DirEntry, err error) error {
		if err == nil && e.Type().IsRegular() {
			name, _ := filepath.Rel(dir, path)
			names = append(names, name)
		}
		return err
	}); err != nil {
		t.Fatal(err)
	}
	return names
}

func TestDisk(t *testing.T) {
	dir := filepath.Join(t.TempDir(), "data", "uploads")
	ctx := context.Background()
	d := disk(t, dir)
	put := func(id, text string) {
		t.Helper()
		w, err := d.Create(ctx, id)
		if err != nil {
			t.Fatal(err)
		}
		if _, err := io.WriteString(w, text); err != nil {
			t.Fatal(err)
		}
		if _, err := d.Open(ctx, id); !errors.Is(err, fs.ErrNotExist) {
			t.Errorf("%s can be opened before it is whole: %v", id, err)
		}
		if err := w.Commit(); err != nil {
			t.Fatal(err)
		}
		w.Abort() // too late
	}
	put("ABC", "one")
	put("ABD", "two")
	put("XYZ", strings.Repeat("three", 100_000))
	for id, want := range map[string]string{"ABC": "one", "ABD": "two", "XYZ": strings.Repeat("three", 100_000)} {
		r, err := d.Open(ctx, id)
		if err != nil {
			t.Fatal(err)
		}
		got, err := io.ReadAll(r)
		if err != nil || string(got) != want {
			t.Errorf("%s: %d bytes, %v", id, len(got), err)
		}
		if err := r.Close(); err != nil {
			t.Error(err)
		}
	}
	if _, err := d.Create(ctx, "ABC"); !errors.Is(err, fs.ErrExist) {
		t.Errorf("a file is created again: %v", err)
	}
	aborted, err := d.Create(ctx, "ABE")
	if err != nil {
		t.Fatal(err)
	}
	if _, err := d.Create(ctx, "ABE"); !errors.Is(err, fs.ErrExist) {
		t.Errorf("a file is created twice: %v", err)
	}
	aborted.Abort()
	for range 2 {
		if err := d.Remove(ctx, "ABD"); err != nil {
			t.Error(err)
		}
	}
	if got, want := files(t, dir), []string{"AB/ABC", "XY/XYZ"}; !slices.Equal(got, want) {
		t.Errorf("files: %v, want %v", got, want)
	}
	// A process that ends in the middle leaves nothing.
	if _, err := d.Create(ctx, "HALF"); err != nil {
		t.Fatal(err)
	}
	d = disk(t, dir)
	if got, want := files(t, dir), []string{"AB/ABC", "XY/XYZ"}; !slices.Equal(got, want) {
		t.Errorf("files after a restart: %v, want %v", got, want)
	}
	if info, err := os.Stat(filepath.Join(dir, "AB", "ABC")); err != nil || info.Mode().Perm() != 0o600 {
		t.Errorf("mode %v, %v", info.Mode(), err)
	}
	if info, err := os.Stat(dir); err != nil || info.Mode().Perm() != 0o700 {
		t.Errorf("mode %v, %v", info.Mode(), err)
	}
}

// Whatever the ids are, nothing outside of the folder is touched.
func TestDiskStaysInItsFolder(t *testing.T) {
	dir := t.TempDir()
	secret := filepath.Join(dir, "secret")
	if err := os.WriteFile(secret, []byte("x"), 0o600); err != nil {
		t.Fatal(err)
	}
	uploads := filepath.Join(dir, "uploads")
	d := disk(t, uploads)
	if err := os.Symlink(dir, filepath.Join(uploads, "SY")); err != nil {
		t.Fatal(err)
	}
	if err := os.Rename(secret, filepath.Join(dir, "SYM")); err != nil {
		t.Fatal(err)
	}
	for _, id := range []string{"", "A", "AB", "../secret", "..", "AB/../../secret", "AB\x00C", "/etc/passwd", `..\secret`, "ABC.", "ä", "SYM"} {
		if r, err := d.Open(context.Background(), id); err == nil {
			_ = r.Close()
			t.Errorf("%q was opened", id)
		}
		if w, err := d.Create(context.Background(), id); err == nil {
			if err := w.Commit(); err == nil {
				t.Errorf("%q was created", id)
			}
			w.Abort()
		}
		_ = d.Remove(context.Background(), id)
	}
	if got := files(t, dir); !slices.Equal(got, []string{"SYM"}) {
		t.Errorf("files: %v", got)
	}
}
