package etcd

import (
	"context"
	"errors"
	"fmt"
	"syscall"

	"go.etcd.io/etcd/api/v3/v3rpc/rpctypes"

	"hansa.dev/hansa/internal/store"
)

// ErrCorrupt means that what is in the record, or in a backup of it, does not fit together.
var ErrCorrupt = errors.New("the record is damaged")

// ErrLocked means that another store has the directory open.
var ErrLocked = errors.New("the directory of the record is in use")

// corrupt returns an ErrCorrupt that says what is wrong.
func corrupt(format string, args ...any) error {
	return fmt.Errorf("%w: %w", ErrCorrupt, fmt.Errorf(format, args...))
}

// translate maps an error of etcd to what the package store speaks of. Errors without a counterpart stay.
func (s *Store) translate(err error) error {
	switch {
	case err == nil:
		return nil
	case errors.Is(err, rpctypes.ErrNoSpace), errors.Is(err, rpctypes.ErrGRPCNoSpace), errors.Is(err, syscall.ENOSPC):
		return fmt.Errorf("%w: %w", store.ErrStorageFull, err)
	case errors.Is(err, context.Canceled), errors.Is(err, context.DeadlineExceeded):
		return err
	}
	if failed := s.Err(); failed != nil {
		return failed
	}
	return err
}
