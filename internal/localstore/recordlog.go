package localstore

import (
	"bytes"
	"encoding/binary"
	"errors"
	"fmt"
	"io"
	"io/fs"
	"os"
	"path/filepath"

	"hansa.dev/hansa/internal/keys"
	"hansa.dev/hansa/internal/x/durable"
)

// maxRecord bounds one record of a log.
const maxRecord = 64 << 20

// recordLog is an append-only file of sealed records: a length of four bytes and a box, again and again. The context
// of a box names the log and the number of the record, so that records cannot be moved. It is not safe for
// concurrent use.
type recordLog struct {
	path    string
	context string
	sealer  *keys.Sealer

	f     *os.File // nil until the first append
	count uint64   // whole records
	size  int64    // bytes of whole records; what follows is cut off before the next append
	read  bool     // count and size are known
}

func (l *recordLog) recordContext(i uint64) string { return fmt.Sprintf("%s record %d", l.context, i) }

// load calls yield for every whole record. If bytes follow the last whole one, tail says why they are not a record:
// io.ErrUnexpectedEOF for what a crash leaves of an append, which is no damage, and anything else otherwise.
func (l *recordLog) load(yield func([]byte) error) (tail, err error) {
	l.count, l.size, l.read = 0, 0, true
	b, err := os.ReadFile(l.path)
	if errors.Is(err, fs.ErrNotExist) {
		return nil, nil
	}
	if err != nil {
		return nil, fmt.Errorf("read log: %w", err)
	}
	for len(b) > 0 {
		if len(b) < 4 {
			return fmt.Errorf("record %d: %w", l.count, io.ErrUnexpectedEOF), nil
		}
		n := int64(binary.BigEndian.Uint32(b))
		if n > int64(len(b)-4) {
			return fmt.Errorf("record %d: %w", l.count, io.ErrUnexpectedEOF), nil
		}
		record, err := l.sealer.Open(l.recordContext(l.count), b[4:4+n])
		if err != nil && len(bytes.Trim(b, "\x00")) == 0 {
			return fmt.Errorf("record %d: %w", l.count, io.ErrUnexpectedEOF), nil // the file grew, its bytes never came
		}
		if err != nil {
			return err, nil
		}
		if err := yield(record); err != nil {
			return nil, err
		}
		b = b[4+n:]
		l.count++
		l.size += 4 + n
	}
	return nil, nil
}

// append adds a record and flushes it to the disk. After an error the log is as it was before.
func (l *recordLog) append(record []byte) error {
	if len(record) > maxRecord {
		return fmt.Errorf("append to log: record of %d bytes is more than %d", len(record), maxRecord)
	}
	if !l.read {
		if _, err := l.load(func([]byte) error { return nil }); err != nil {
			return err
		}
	}
	if err := l.open(); err != nil {
		return full(err)
	}
	box := l.sealer.Seal(l.recordContext(l.count), record)
	buf := binary.BigEndian.AppendUint32(make([]byte, 0, 4+len(box)), uint32(len(box)))
	buf = append(buf, box...)
	_, err := l.f.WriteAt(buf, l.size)
	if err == nil {
		err = l.f.Sync()
	}
	if err != nil {
		// What was written of the record is cut off, now to free the space and again when the file is reopened. A file
		// whose sync failed is not to be trusted with another one; if the record is on the disk after all, the next
		// one overwrites it.
		return full(errors.Join(fmt.Errorf("append to log: %w", err), l.f.Truncate(l.size), l.close()))
	}
	l.count++
	l.size += int64(len(buf))
	return nil
}

func (l *recordLog) open() error {
	if l.f != nil {
		return nil
	}
	f, err := os.OpenFile(l.path, os.O_RDWR|os.O_CREATE, 0o600)
	if err != nil {
		return fmt.Errorf("open log: %w", err)
	}
	if err := f.Truncate(l.size); err != nil {
		return errors.Join(fmt.Errorf("cut log: %w", err), f.Close())
	}
	if err := durable.SyncDir(filepath.Dir(l.path)); err != nil {
		return errors.Join(err, f.Close())
	}
	l.f = f
	return nil
}

func (l *recordLog) close() error {
	if l.f == nil {
		return nil
	}
	err := l.f.Close()
	l.f = nil
	return err
}
