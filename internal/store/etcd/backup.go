package etcd

import (
	"context"
	"errors"
	"fmt"
	"io"
)

// Backup implements store.Store.
func (s *Store) Backup(context.Context, io.Writer) error {
	return fmt.Errorf("back up the record: %w", errors.ErrUnsupported)
}
