package pie

import (
	"bufio"
	"encoding/xml"
	"errors"
	"fmt"
	"io"
	"net/url"
	"os"
	"path"
	"path/filepath"
)

// nsInclude is that of XInclude 1.0.
const nsInclude = "http://www.w3.org/2001/XInclude"

// maxIncludes bounds how deep files include files. chosen: the layout of XEP-0227 §5.1 has two levels.
const maxIncludes = 4

// Open opens a document together with the files that it includes (XEP-0227 §5): what is read is one document. Only files in the folder of the
// first one, or below it, are included.
func Open(name string) (io.ReadCloser, error) {
	root, err := os.OpenRoot(filepath.Dir(name))
	if err != nil {
		return nil, err
	}
	f, err := root.Open(filepath.Base(name))
	if err != nil {
		return nil, errors.Join(err, root.Close())
	}
	r, w := io.Pipe()
	done := make(chan struct{})
	go func() {
		defer close(done)
		j := joiner{root: root, w: bufio.NewWriterSize(w, 64<<10)}
		err := j.file(f, filepath.Base(name), 0, 0)
		if err == nil {
			err = j.w.Flush()
		}
		err = errors.Join(err, root.Close())
		_ = w.CloseWithError(err) // never fails
	}()
	return &joined{r, done}, nil
}

// joined waits for its writer when it is closed.
type joined struct {
	*io.PipeReader
	done chan struct{}
}

func (j *joined) Close() error {
	err := j.PipeReader.Close()
	<-j.done
	return err
}

// joiner copies files, with the contents of others in the place of their <include/>s.
type joiner struct {
	root *os.Root
	w    *bufio.Writer
}

// copier is a file as encoding/xml reads it: a byte at a time, and what was read is kept until it is clear whether it is copied.
type copier struct {
	r    *bufio.Reader
	kept []byte
	n    int64 // bytes read
}

// upTo takes what was kept before an offset of the file.
func (c *copier) upTo(offset int64) []byte {
	n := len(c.kept) - int(c.n-offset)
	b := c.kept[:n]
	c.kept = append([]byte(nil), c.kept[n:]...)
	return b
}

func (c *copier) ReadByte() (byte, error) {
	b, err := c.r.ReadByte()
	if err == nil {
		c.n++
		if c.kept = append(c.kept, b); len(c.kept) > maxElement {
			return 0, errTooLarge
		}
	}
	return b, err
}

// Read is never called.
func (c *copier) Read([]byte) (int, error) { return 0, errors.ErrUnsupported }

// file copies a file that begins at that depth of the whole document, and closes it. XEP-0227 §5: an <include/> deeper than the children of <user/> is the
// user's data.
func (j *joiner) file(f *os.File, name string, depth, level int) (err error) {
	defer func() { err = errors.Join(err, f.Close()) }()
	c := &copier{r: bufio.NewReaderSize(f, 64<<10)}
	d := xml.NewDecoder(c)
	fail := func(err error) error {
		if level == 0 {
			return err
		}
		line, column := d.InputPos()
		return fmt.Errorf("%s, line %d, column %d: %w", name, line, column, err)
	}
	for {
		t, err := d.Token()
		if errors.Is(err, io.EOF) {
			_, err := j.w.Write(c.kept)
			return err
		}
		if err != nil {
			if level == 0 {
				// The one who reads the document finds the same mistake, and tells it with its place.
				if _, err := j.w.Write(c.kept); err != nil {
					return err
				}
				_, err := io.Copy(j.w, c.r)
				return err
			}
			return fail(err)
		}
		switch t := t.(type) {
		case xml.StartElement:
			if t.Name.Space == nsInclude && t.Name.Local == "include" && depth > 0 && depth <= 3 {
				if err := d.Skip(); err != nil {
					return fail(err)
				}
				c.upTo(d.InputOffset())
				if err := j.include(t, name, depth, level+1); err != nil {
					return fail(err)
				}
				continue
			}
			depth++
		case xml.EndElement:
			depth--
		case xml.Directive:
			if level > 0 {
				return fail(errors.New("a document type is not allowed"))
			}
		case xml.ProcInst:
			if level > 0 {
				c.upTo(d.InputOffset()) // the XML declaration of a file inside of another
			}
		}
		if _, err := j.w.Write(c.upTo(d.InputOffset())); err != nil {
			return err
		}
	}
}

// include copies the file that an <include/> names: XEP-0227 §5, a relative URI, and nothing else.
func (j *joiner) include(start xml.StartElement, from string, depth, level int) error {
	if level > maxIncludes {
		return fmt.Errorf("files included more than %d deep", maxIncludes)
	}
	if attr(start, "parse") != "" && attr(start, "parse") != "xml" || attr(start, "xpointer") != "" {
		return errors.New("an XInclude with parse or xpointer")
	}
	u, err := url.Parse(attr(start, "href"))
	if err != nil || u.IsAbs() || u.Host != "" || u.Path == "" || path.IsAbs(u.Path) || u.RawQuery != "" || u.Fragment != "" {
		return fmt.Errorf("an XInclude of %q: not the relative name of a file", attr(start, "href"))
	}
	name := path.Join(path.Dir(filepath.ToSlash(from)), u.Path)
	f, err := j.root.Open(filepath.FromSlash(name)) // security: never outside of the folder
	if err != nil {
		return err
	}
	return j.file(f, name, depth, level)
}
