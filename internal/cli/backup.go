package cli

import (
	"context"
	"errors"
	"fmt"
	"io"
	"os"
	"path/filepath"

	"github.com/spf13/cobra"

	"hansa.dev/hansa/client"
)

func (s *session) backupCommand() *cobra.Command {
	var file string
	c := &cobra.Command{
		Use:   "backup",
		Short: "Write the whole record to a file",
		Long: `Backup writes the whole record as it is at one version: resources, the hashes of keys and tokens, and the audit records.
It is made while the control node works. "hansa restore" makes a data folder of it.`,
		Example: "  hansa backup -o hansa.backup\n  hansa backup -o - | gpg -e -r ops > hansa.backup.gpg",
		Args:    cobra.NoArgs,
	}
	outputFileFlag(c, &file, "file to write, which must not exist,")
	c.RunE = s.run(func(ctx context.Context, _ *cobra.Command, _ []string) error {
		return s.call(ctx, 0, func(ctx context.Context, c *client.Client) error {
			note := s.progress("backing up")
			defer note.end()
			write := func(w io.Writer) (int64, error) { return c.Backup(ctx, io.MultiWriter(w, note)) }
			if file == "-" {
				_, err := write(s.out)
				return err
			}
			n, err := newFile(file, write)
			note.end()
			if err != nil {
				return err
			}
			_, err = fmt.Fprintf(s.out, "%s written, %s\n", file, size(n))
			return wrapOutput(err)
		})
	})
	return c
}

// outputFileFlag makes -o the file that a command writes, in place of the form of its result.
func outputFileFlag(c *cobra.Command, file *string, what string) {
	c.Flags().StringVarP(file, "output", "o", "", what+` or "-" for standard output`)
	_ = c.MarkFlagRequired("output")
	_ = c.MarkFlagFilename("output")
	c.PreRunE = func(c *cobra.Command, _ []string) error {
		switch *file {
		case outputTable, outputJSON, outputYAML:
			return fmt.Errorf("-o of %q names the file to write: for a file of this name write ./%s", c.CommandPath(), *file)
		}
		return nil
	}
}

// newFile makes a file that only its owner can read, whole and on the disk or not at all. It never replaces one.
func newFile(name string, write func(io.Writer) (int64, error)) (int64, error) {
	if _, err := os.Lstat(name); err == nil {
		return 0, withExit(ExitConflict, fmt.Errorf("%s exists already: name another file", name))
	}
	tmp, err := os.CreateTemp(filepath.Dir(name), ".hansa-*") // mode 0600
	if err != nil {
		return 0, err
	}
	defer os.Remove(tmp.Name()) // after the link the name is one of two
	n, err := write(tmp)
	if err = errors.Join(err, tmp.Sync(), tmp.Close()); err != nil {
		return n, err
	}
	return n, os.Link(tmp.Name(), name) // fails if somebody else made the file meanwhile
}
