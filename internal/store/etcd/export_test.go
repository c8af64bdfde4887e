package etcd

import "context"

// Maintain does now what maintenance would do soon, and writes an image whether or not one is due. It must not run
// at the same time as maintenance itself.
func (s *Store) Maintain(ctx context.Context) error {
	if err := s.writeImage(ctx); err != nil {
		return err
	}
	if err := s.collect(ctx); err != nil {
		return err
	}
	return s.makeRoom(ctx)
}
