package cli

import (
	"context"
	"errors"
	"fmt"
	"io"
	"io/fs"
	"log/slog"
	"os"
	"path/filepath"

	"github.com/spf13/cobra"

	"hansa.dev/hansa/internal/store/etcd"
	"hansa.dev/hansa/internal/telemetry"
	"hansa.dev/hansa/internal/x/durable"
)

func (s *session) restoreCommand() *cobra.Command {
	var data, oldKeys string
	var dryRun bool
	c := &cobra.Command{
		Use:   "restore FILE",
		Short: "Make the data folder of a control node from a backup",
		Long: `Restore checks a backup and makes a new data folder of it, for "hansa control --data". The record gets a higher epoch, so that
gateways follow it and no longer the one that the backup was made of, which must not run any more.

A backup holds no keys. With --keys, the folder "keys" of the old data folder, gateways know the new node; without, the node
makes a new root and every gateway must join anew.`,
		Example: "  hansa restore hansa.backup --data /var/lib/hansa --keys /mnt/old/keys",
		Args:    cobra.ExactArgs(1),
	}
	c.Flags().StringVar(&data, "data", "", "data folder to make; it must be empty or missing")
	c.Flags().StringVar(&oldKeys, "keys", "", `folder "keys" of the old data folder, which is copied`)
	c.Flags().BoolVar(&dryRun, "dry-run", false, "check the backup only")
	_ = c.MarkFlagRequired("data")
	c.RunE = s.run(func(ctx context.Context, _ *cobra.Command, args []string) error {
		f, err := os.Open(args[0])
		if err != nil {
			return err
		}
		defer f.Close()
		note := s.progress("restoring")
		defer note.end()
		info, err := etcd.VerifyBackup(f)
		if err != nil {
			return withExit(ExitInvalid, fmt.Errorf("%s: %w", args[0], err))
		}
		if dryRun {
			note.end()
			return s.print(info, func(w io.Writer) {
				fmt.Fprintf(w, "%s is whole: version %d.%d\n", args[0], info.Version.Epoch, info.Version.Seq)
			})
		}
		if err := emptyFolder(data); err != nil {
			return withExit(ExitConflict, err)
		}
		if oldKeys != "" {
			if err := copyKeys(oldKeys, filepath.Join(data, "keys")); err != nil {
				return fmt.Errorf("copy keys: %w", err)
			}
		}
		if _, err := f.Seek(0, io.SeekStart); err != nil {
			return fmt.Errorf("read %s again: %w", args[0], err)
		}
		version, err := etcd.Restore(ctx, etcd.RestoreOptions{
			Dir: filepath.Join(data, "record"), Source: f, Logger: telemetry.NewLogger(s.err, slog.LevelWarn, false),
		})
		if err != nil {
			return nodeError(err)
		}
		note.end()
		return s.print(version, func(w io.Writer) {
			fmt.Fprintf(w, "%s restored as version %d.%d\n", data, version.Epoch, version.Seq)
			if oldKeys == "" {
				fmt.Fprintln(w, "No keys were copied: gateways must join anew.")
			}
		})
	})
	return c
}

// emptyFolder makes the folder, and refuses one that holds something.
func emptyFolder(dir string) error {
	if err := os.MkdirAll(dir, 0o700); err != nil {
		return err
	}
	entries, err := os.ReadDir(dir)
	if err != nil {
		return err
	}
	if len(entries) > 0 {
		return fmt.Errorf("folder %s is not empty: a backup is restored into a new one", dir)
	}
	return nil
}

// copyKeys copies the files of a folder, which has no folders in it, and keeps them secret.
func copyKeys(from, to string) error {
	entries, err := os.ReadDir(from)
	if err != nil {
		return err
	}
	if err := os.MkdirAll(to, 0o700); err != nil {
		return err
	}
	var faults []error
	for _, e := range entries {
		if !e.Type().IsRegular() {
			continue
		}
		b, err := os.ReadFile(filepath.Join(from, e.Name()))
		if err == nil {
			err = durable.CreateFile(filepath.Join(to, e.Name()), fs.FileMode(0o600), durable.Bytes(b))
		}
		faults = append(faults, err)
	}
	return errors.Join(faults...)
}
