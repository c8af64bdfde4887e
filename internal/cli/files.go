package cli

import (
	"bytes"
	"errors"
	"fmt"
	"io"
	"io/fs"
	"net/http"
	"os"
	"path/filepath"
	"sort"
	"strings"

	"github.com/spf13/cobra"

	v1 "hansa.dev/hansa/api/v1"
	"hansa.dev/hansa/client"
	"hansa.dev/hansa/internal/resource"
)

// maxInput bounds what is read from files and standard input together. The server has a limit of its own, which is
// what usually decides.
const maxInput = 256 << 20

// stdinName stands for the name of a file where there is none.
const stdinName = "stdin"

// documents is the content of one or more files as one stream of documents, and where each file stands in it.
type documents struct {
	data  []byte
	files []placedFile
}

// placedFile is a file and the lines of the stream that it takes.
type placedFile struct {
	name  string
	first int // line of the stream that holds the first line of the file, counted from 1
	bytes int
}

// fileFlag adds the flag -f to a command.
func fileFlag(c *cobra.Command, paths *[]string) {
	c.Flags().StringArrayVarP(paths, "filename", "f", nil, `file or folder with resources, or "-" for standard input; may be repeated`)
	_ = c.MarkFlagRequired("filename")
	_ = c.MarkFlagFilename("filename", "yaml", "yml", "json")
}

// readDocuments reads what -f names. A folder stands for all .yaml, .yml and .json files in it and below, in the
// order of their names; hidden ones are passed over.
func (s *session) readDocuments(paths []string) (documents, error) {
	var d documents
	line := 1
	add := func(name string, b []byte) error {
		b, err := inlineFiles(name, b)
		if err != nil {
			return err
		}
		if len(d.data)+len(b) > maxInput {
			return withExit(ExitInvalid, fmt.Errorf("%s: the input has more than %d bytes altogether: apply it in parts", name, maxInput))
		}
		// The marker keeps files apart. It is added before the first one as well, so that a file with directives of
		// its own is read as it would be alone.
		d.data = append(d.data, "---\n"...)
		d.files = append(d.files, placedFile{name: name, first: line + 1, bytes: len(b)})
		d.data = append(d.data, bytes.TrimPrefix(b, []byte("\xef\xbb\xbf"))...)
		if len(b) > 0 && b[len(b)-1] != '\n' {
			d.data = append(d.data, '\n')
			line++
		}
		line += 1 + bytes.Count(b, []byte("\n"))
		return nil
	}
	for _, path := range paths {
		if path == "-" {
			b, err := io.ReadAll(io.LimitReader(s.in, maxInput+1))
			if err != nil {
				return d, fmt.Errorf("read standard input: %w", err)
			}
			if err := add(stdinName, b); err != nil {
				return d, err
			}
			continue
		}
		names, err := filesOf(path)
		if err != nil {
			return d, err
		}
		for _, name := range names {
			b, err := readFile(name)
			if err != nil {
				return d, err
			}
			if err := add(name, b); err != nil {
				return d, err
			}
		}
	}
	if d.empty() {
		// Rather an empty pipe or a wrong file than the wish to change nothing.
		var names []string
		for _, f := range d.files {
			names = append(names, f.name)
		}
		return d, withExit(ExitInvalid, fmt.Errorf("there is no resource in %s", strings.Join(names, ", ")))
	}
	return d, nil
}

// empty tells whether the stream holds nothing but comments and separators.
func (d documents) empty() bool {
	for line := range bytes.Lines(d.data) {
		if line = bytes.TrimSpace(line); len(line) > 0 && line[0] != '#' && !bytes.Equal(line, []byte("---")) {
			return false
		}
	}
	return true
}

func readFile(name string) ([]byte, error) {
	f, err := os.Open(name)
	if err != nil {
		return nil, err
	}
	defer f.Close()
	b, err := io.ReadAll(io.LimitReader(f, maxInput+1))
	if err != nil {
		return nil, fmt.Errorf("read %s: %w", name, err)
	}
	return b, nil
}

// filesOf returns path itself, or the files of the folder that it is.
func filesOf(path string) ([]string, error) {
	info, err := os.Stat(path)
	if err != nil {
		return nil, err
	}
	if !info.IsDir() {
		return []string{path}, nil
	}
	var names []string
	err = filepath.WalkDir(path, func(name string, entry fs.DirEntry, err error) error {
		if err != nil {
			return err
		}
		hidden := name != path && strings.HasPrefix(entry.Name(), ".")
		switch {
		case hidden && entry.IsDir():
			return filepath.SkipDir
		case hidden || entry.IsDir():
			return nil
		}
		switch filepath.Ext(name) {
		case ".yaml", ".yml", ".json":
			names = append(names, name)
		}
		return nil
	})
	if err != nil {
		return nil, err
	}
	if len(names) == 0 {
		return nil, withExit(ExitInvalid, fmt.Errorf("folder %s holds no .yaml, .yml or .json file", path))
	}
	sort.Strings(names)
	return names, nil
}

// reader returns the stream.
func (d documents) reader() io.Reader { return bytes.NewReader(d.data) }

// place turns the lines of the stream in the faults of err into those of the files.
func (d documents) place(err error) error {
	if e, ok := errors.AsType[*client.Error](err); ok {
		if e.Status == http.StatusRequestEntityTooLarge && len(e.Faults) == 0 && len(d.files) > 0 {
			e.Faults = []v1.Fault{d.largest()}
		}
		for i := range e.Faults {
			d.placeFault(&e.Faults[i])
		}
	}
	return err
}

// largest is the fault of the file that makes the input too large.
func (d documents) largest() v1.Fault {
	most := d.files[0]
	for _, f := range d.files {
		if f.bytes > most.bytes {
			most = f
		}
	}
	return v1.Fault{
		Line: most.first, Column: 1, Code: resource.CodeTooLarge,
		Message: fmt.Sprintf("the file has %d bytes, which is most of the %d bytes of input", most.bytes, len(d.data)),
		Remedy:  "apply it in parts, or shorten the definitions in it",
	}
}

func (d documents) placeFault(f *v1.Fault) {
	if f.Line == 0 || f.File != "" || len(d.files) == 0 {
		return
	}
	stream := f.Line
	f.File, f.Line = d.at(f.Line)
	if f.FirstLine == 0 {
		return
	}
	file, line := d.at(f.FirstLine)
	where := fmt.Sprintf("in line %d", line)
	if file != f.File {
		where += " of " + file
	}
	f.Message = strings.Replace(f.Message, fmt.Sprintf("in line %d", f.FirstLine), where, 1)
	f.FirstLine += f.Line - stream
	if file != f.File {
		f.FirstLine = 0 // it is of the same file only
	}
}

// at returns the file and its line that a line of the stream is.
func (d documents) at(line int) (string, int) {
	i := max(0, sort.Search(len(d.files), func(i int) bool { return d.files[i].first > line })-1)
	return d.files[i].name, max(1, line-d.files[i].first+1)
}
