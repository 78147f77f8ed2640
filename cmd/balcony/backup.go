package main

import (
	"context"
	"errors"
	"fmt"
	"io"
	"io/fs"
	"os"
	"path/filepath"
	"time"

	"balcony/cmd/balcony/config"
	"balcony/storage"
)

// copied are the folders of the data folder that a backup has, beside the database.
var copied = []string{"certificates", "uploads"}

// backup makes a data folder that the server can be started with, while it runs: the database in one state of it, the uploaded files, the
// self-signed certificates. It is there as a whole or not at all.
func backup(args []string, s std) error {
	path, rest, err := options(args, 1, 1)
	if err != nil {
		return err
	}
	cfg, err := config.Load(path)
	if err != nil {
		return err
	}
	to := filepath.Clean(rest[0])
	if _, err := os.Lstat(to); !errors.Is(err, fs.ErrNotExist) {
		return errors.Join(err, fmt.Errorf("%s is there already: a backup is a new folder", to))
	}
	part, err := os.MkdirTemp(filepath.Dir(to), "."+filepath.Base(to)+"-*") // mode 0700
	if err != nil {
		return err
	}
	n, err := fill(cfg, part)
	external := errors.Is(err, storage.ErrNotEmbedded)
	if external {
		err = nil
	}
	if err == nil {
		err = os.Rename(part, to)
	}
	if err == nil {
		err = syncFolder(filepath.Dir(to))
	}
	if err != nil {
		return errors.Join(err, os.RemoveAll(part))
	}
	if external {
		_, err = fmt.Fprintf(s.out, "backup in %s: %d files; the database is not among them, use pg_dump\n", to, n)
		return err
	}
	_, err = fmt.Fprintf(s.out, "backup in %s: database and %d files\n", to, n)
	return err
}

// fill copies the data into a folder and returns how many files that were beside the database. storage.ErrNotEmbedded when all but the
// database are there.
func fill(cfg *config.Config, to string) (n int, err error) {
	// The database first: every file that it knows is there then, or was removed meanwhile and would have been by the copy too.
	dbErr := storage.Backup(context.Background(), storage.Config{Driver: cfg.Storage.Driver, DSN: cfg.Storage.DSN}, cfg.Data, filepath.Join(to, "balcony.db"))
	if dbErr != nil && !errors.Is(dbErr, storage.ErrNotEmbedded) {
		return 0, dbErr
	}
	now := time.Now()
	for _, folder := range copied {
		k, err := copyFolder(filepath.Join(cfg.Data, folder), filepath.Join(to, folder), now)
		if err != nil {
			return 0, err
		}
		n += k
	}
	return n, errors.Join(syncFolder(to), dbErr)
}

// copyFolder copies the files below a folder that were there before a time; none if there is no such folder.
func copyFolder(from, to string, before time.Time) (n int, err error) {
	err = filepath.WalkDir(from, func(path string, e fs.DirEntry, err error) error {
		switch {
		case errors.Is(err, fs.ErrNotExist): // removed meanwhile
			return nil
		case err != nil:
			return err
		case e.IsDir() && e.Name() == "unfinished":
			return fs.SkipDir // uploads that are not whole
		}
		name, err := filepath.Rel(from, path)
		if err != nil {
			return err
		}
		target := filepath.Join(to, name)
		if e.IsDir() {
			return os.MkdirAll(target, 0o700)
		}
		if !e.Type().IsRegular() {
			return nil
		}
		ok, err := copyFile(path, target, before)
		if ok {
			n++
		}
		return err
	})
	return n, err
}

// copyFile copies a file durably; false when it is newer, or gone.
func copyFile(from, to string, before time.Time) (ok bool, err error) {
	in, err := os.Open(from)
	if errors.Is(err, fs.ErrNotExist) {
		return false, nil
	}
	if err != nil {
		return false, err
	}
	defer func() { err = errors.Join(err, in.Close()) }()
	if info, err := in.Stat(); err != nil || info.ModTime().After(before) {
		return false, err
	}
	out, err := os.OpenFile(to, os.O_WRONLY|os.O_CREATE|os.O_EXCL, 0o600)
	if err != nil {
		return false, err
	}
	_, err = io.Copy(out, in)
	if err == nil {
		err = out.Sync()
	}
	if err = errors.Join(err, out.Close()); err != nil {
		return false, err
	}
	return true, syncFolder(filepath.Dir(to))
}

func syncFolder(path string) error {
	f, err := os.Open(path)
	if err != nil {
		return err
	}
	return errors.Join(f.Sync(), f.Close())
}
