package etcd

import (
	"context"
	"errors"
	"fmt"
	"time"

	"go.etcd.io/etcd/api/v3/etcdserverpb"
	clientv3 "go.etcd.io/etcd/client/v3"
)

const (
	// maintainEvery is how often maintenance runs without a cause.
	maintainEvery = time.Hour
	// maintainPause is how long it rests at least, so that causes that come in a row are dealt with together.
	maintainPause = time.Second
	// defragBytes is how much free space inside etcd's database is worth rewriting it while it runs. Writing waits
	// for that, about a second for 100 MB.
	defragBytes = 512 << 20
)

// wantMaintenance makes maintenance run soon.
func (s *Store) wantMaintenance() {
	select {
	case s.kick <- struct{}{}:
	default: // it is going to run anyway
	}
}

// maintain keeps the record small and quick to start, until the context ends: it writes images, collects what is no
// longer needed, and makes room in etcd.
func (s *Store) maintain(ctx context.Context) {
	ticker := time.NewTicker(maintainEvery)
	defer ticker.Stop()
	for {
		if err := s.maintainOnce(ctx); err != nil && ctx.Err() == nil && s.Err() == nil {
			s.log.WarnContext(ctx, "maintenance of the record failed; it will be tried again", "err", err)
		}
		select {
		case <-time.After(maintainPause):
		case <-ctx.Done():
			return
		}
		select {
		case <-s.kick:
		case <-ticker.C:
		case <-ctx.Done():
			return
		}
	}
}

// maintainOnce does all that is due.
func (s *Store) maintainOnce(ctx context.Context) error {
	s.maintenance.Lock()
	defer s.maintenance.Unlock()
	var errs []error
	if s.imageDue() {
		errs = append(errs, s.writeImage(ctx))
	}
	errs = append(errs, s.collect(ctx), s.makeRoom(ctx))
	return errors.Join(errs...)
}

// makeRoom rewrites etcd's database if much of it is free, and lifts the alarm that etcd raises when the database
// has reached its quota, if there is room again.
func (s *Store) makeRoom(ctx context.Context) error {
	leave, err := s.enter()
	if err != nil {
		return err
	}
	defer leave()
	full, err := s.alarmed(ctx)
	if err != nil {
		return err
	}
	status, err := s.client.Status(ctx, "")
	if err != nil {
		return s.translate(err)
	}
	if full {
		// What was deleted is still there for those who read the past. Room is more urgent.
		if _, err := s.client.Compact(ctx, status.Header.Revision, clientv3.WithCompactPhysical()); err != nil {
			s.log.DebugContext(ctx, "history could not be compacted", "err", err) // it may have been already
		}
		if status, err = s.client.Status(ctx, ""); err != nil {
			return s.translate(err)
		}
	}
	if free := status.DbSize - status.DbSizeInUse; full || free > defragBytes && free > status.DbSize/2 {
		if err := s.roomFor(status.DbSizeInUse); err != nil {
			return fmt.Errorf("rewrite the database: %w", err)
		}
		begin := time.Now()
		if err := s.server.defragment(); err != nil {
			return err
		}
		s.log.InfoContext(ctx, "database rewritten", "was_bytes", status.DbSize, "used_bytes", status.DbSizeInUse, "took", time.Since(begin))
		if status, err = s.client.Status(ctx, ""); err != nil {
			return s.translate(err)
		}
	}
	s.metrics.databaseBytes.Set(float64(status.DbSize))
	if full && status.DbSize < s.opts.Quota-s.opts.Quota/16 {
		if _, err := s.client.AlarmDisarm(ctx, &clientv3.AlarmMember{}); err != nil {
			return s.translate(err)
		}
		s.log.InfoContext(ctx, "there is room in the record again", "bytes", status.DbSize, "quota", s.opts.Quota)
	}
	return nil
}

// alarmed tells whether etcd refuses writes because its quota is reached. An alarm about damage ends the record.
func (s *Store) alarmed(ctx context.Context) (full bool, err error) {
	resp, err := s.client.AlarmList(ctx)
	if err != nil {
		return false, s.translate(err)
	}
	for _, a := range resp.Alarms {
		switch a.Alarm {
		case etcdserverpb.AlarmType_NOSPACE:
			full = true
		case etcdserverpb.AlarmType_CORRUPT:
			err := corrupt("etcd found that its members differ")
			s.fail(err)
			return false, err
		}
	}
	return full, nil
}
