package storage

import (
	"context"
	"errors"
	"fmt"
	"io"
	"io/fs"
	"os"

	"balcony/xmpp/ext/upload"
)

var _ upload.Files = (*Disk)(nil)

// Disk keeps uploaded files in a folder, each under its id in one of many subfolders. It never leaves that folder, whatever the ids are.
type Disk struct{ root *os.Root }

// unfinished is the subfolder of files that are being written.
const unfinished = "unfinished"

// OpenDisk opens the folder, which is made with mode 0700 if it is not there, and removes what an earlier process has left unfinished.
func OpenDisk(path string) (*Disk, error) {
	d, err := openDisk(path)
	if err != nil {
		return nil, fmt.Errorf("open folder of uploads: %w", err)
	}
	return d, nil
}

func openDisk(path string) (*Disk, error) {
	if err := os.MkdirAll(path, 0o700); err != nil {
		return nil, err
	}
	root, err := os.OpenRoot(path)
	if err != nil {
		return nil, err
	}
	if err = root.RemoveAll(unfinished); err == nil {
		err = root.Mkdir(unfinished, 0o700)
	}
	if err != nil {
		return nil, errors.Join(err, root.Close())
	}
	return &Disk{root}, nil
}

// Close closes the folder; files that are open stay so.
func (d *Disk) Close() error { return d.root.Close() }

// errID refuses what is no plain file name. The ids are the module's own; this is for whoever forgets that.
var errID = errors.New("no id of a file")

// place is where a file lies.
func place(id string) (folder, path string, err error) {
	for i := range len(id) {
		if c := id[i]; (c < 'A' || c > 'Z') && (c < 'a' || c > 'z') && (c < '0' || c > '9') {
			return "", "", errID
		}
	}
	if len(id) < 3 {
		return "", "", errID
	}
	return id[:2], id[:2] + "/" + id, nil // chosen: 1,024 folders
}

// Create begins a file.
func (d *Disk) Create(_ context.Context, id string) (upload.Writer, error) {
	_, path, err := place(id)
	if err != nil {
		return nil, err
	}
	if _, err := d.root.Lstat(path); !errors.Is(err, fs.ErrNotExist) {
		return nil, errors.Join(err, fmt.Errorf("upload %s: %w", id, fs.ErrExist))
	}
	f, err := d.root.OpenFile(unfinished+"/"+id, os.O_CREATE|os.O_EXCL|os.O_WRONLY, 0o600)
	if err != nil {
		return nil, fmt.Errorf("create upload: %w", err)
	}
	return &diskFile{File: f, d: d, id: id}, nil
}

// Open opens a file for reading.
func (d *Disk) Open(_ context.Context, id string) (io.ReadSeekCloser, error) {
	_, path, err := place(id)
	if err != nil {
		return nil, err
	}
	f, err := d.root.Open(path)
	if err != nil {
		return nil, fmt.Errorf("open upload: %w", err)
	}
	return f, nil
}

// Remove removes a file, finished or not.
func (d *Disk) Remove(_ context.Context, id string) error {
	_, path, err := place(id)
	if err != nil {
		return err
	}
	for _, p := range []string{unfinished + "/" + id, path} {
		if err := d.root.Remove(p); err != nil && !errors.Is(err, fs.ErrNotExist) {
			return fmt.Errorf("remove upload: %w", err)
		}
	}
	return nil
}

type diskFile struct {
	*os.File
	d  *Disk
	id string
}

// Commit syncs the file, gives it its place and syncs that.
func (f *diskFile) Commit() error {
	err := errors.Join(f.Sync(), f.Close())
	folder, path, perr := place(f.id)
	if err = errors.Join(err, perr); err == nil {
		err = f.d.publish(unfinished+"/"+f.id, folder, path)
	}
	if err != nil {
		return fmt.Errorf("store upload: %w", err)
	}
	return nil
}

func (d *Disk) publish(from, folder, path string) error {
	switch err := d.root.Mkdir(folder, 0o700); {
	case err == nil:
		if err := d.sync("."); err != nil {
			return err
		}
	case !errors.Is(err, fs.ErrExist):
		return err
	}
	if err := d.root.Rename(from, path); err != nil {
		return err
	}
	return d.sync(folder)
}

func (d *Disk) sync(folder string) error {
	f, err := d.root.Open(folder)
	if err != nil {
		return err
	}
	return errors.Join(f.Sync(), f.Close())
}

// Abort removes the file.
func (f *diskFile) Abort() {
	_ = f.Close() // what was written is not wanted
	_ = f.d.root.Remove(unfinished + "/" + f.id)
}
