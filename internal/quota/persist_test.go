package quota

import (
	"bytes"
	"encoding/binary"
	"errors"
	"fmt"
	"hash/crc32"
	"testing"
	"time"
)

func TestCountsSurviveARestart(t *testing.T) {
	t.Parallel()
	day := Limit{Key: NewKey(24*time.Hour, false, "day"), Max: 10, Window: 24 * time.Hour}
	hour := Limit{Key: NewKey(time.Hour, false, "hour"), Max: 10, Window: time.Hour}
	rate := Limit{Key: NewKey(time.Second, true, "rate"), Max: 10, Window: time.Second, Sliding: true}
	before := NewSubjects()
	for i := range 100 {
		s := before.Acquire(NewID("subscription", fmt.Sprint(i)))
		s.Admit(&day, noon, uint64(i%10))
		s.Admit(&hour, noon, 3)
		s.Admit(&rate, noon, 1)
	}
	before.Acquire(NewID("idle"))
	saved := before.AppendTo([]byte("prefix"))[len("prefix"):]

	after := NewSubjects()
	early := after.Acquire(NewID("subscription", "5")) // in use before the counts were read
	early.Admit(&day, noon, 1)
	if err := after.Restore(saved, noon); err != nil {
		t.Fatal(err)
	}
	for i := range 100 {
		s := after.Acquire(NewID("subscription", fmt.Sprint(i)))
		want := 10 - uint64(i%10)
		if i == 5 {
			want = 9
		}
		if got := s.Admit(&day, noon+1, 0); got.Remaining != want {
			t.Errorf("subject %d: %d left of the day, want %d", i, got.Remaining, want)
		}
		if got := s.Admit(&hour, noon+int64(time.Hour), 1); got.Remaining != 9 {
			t.Errorf("subject %d: %d left of the next hour, want 9", i, got.Remaining)
		}
		if got := s.Admit(&rate, noon+1, 0); got.Remaining != 10 {
			t.Errorf("subject %d: the sliding window was restored", i)
		}
	}
	if got := after.Len(); got != 100 {
		t.Errorf("%d subjects, want 100: without counts there is nothing to restore", got)
	}
}

func TestRestoredSubjectsAreForgottenIfNobodyComes(t *testing.T) {
	t.Parallel()
	before := NewSubjects()
	l := Limit{Key: NewKey(time.Hour, false, "hour"), Max: 10, Window: time.Hour}
	before.Acquire(NewID("gone")).Admit(&l, noon, 1)
	after := NewSubjects()
	if err := after.Restore(before.AppendTo(nil), noon); err != nil {
		t.Fatal(err)
	}
	after.Sweep(noon+int64(time.Hour), 24*time.Hour)
	if after.Len() != 1 {
		t.Error("forgotten at once")
	}
	after.Sweep(noon+int64(25*time.Hour), 24*time.Hour)
	if after.Len() != 0 {
		t.Error("kept for ever")
	}
}

func FuzzRestore(f *testing.F) {
	subjects := NewSubjects()
	l := Limit{Key: NewKey(time.Hour, false, "hour"), Max: 10, Window: time.Hour}
	subjects.Acquire(NewID("a")).Admit(&l, noon, 1)
	f.Add(subjects.AppendTo(nil))
	f.Add([]byte(countsMagic))
	f.Fuzz(func(t *testing.T, b []byte) {
		s := NewSubjects()
		if s.Restore(b, noon) != nil && s.Len() != 0 {
			t.Error("a part of what is malformed was taken over")
		}
		// With a sum that is right, the parser is reached.
		b = append(append([]byte(countsMagic), b...), 0, 0, 0, 0)
		binary.LittleEndian.PutUint32(b[len(b)-4:], crc32.ChecksumIEEE(b[:len(b)-4]))
		s = NewSubjects()
		if s.Restore(b, noon) != nil {
			return
		}
		again := NewSubjects()
		saved := s.AppendTo(nil)
		if err := again.Restore(saved, noon); err != nil || len(again.AppendTo(nil)) != len(saved) {
			t.Errorf("what was restored cannot be saved and restored: %v", err)
		}
	})
}

func TestTornCountsAreRefused(t *testing.T) {
	t.Parallel()
	subjects := NewSubjects()
	l := Limit{Key: NewKey(time.Hour, false, "hour"), Max: 10, Window: time.Hour}
	for i := range 10 {
		subjects.Acquire(NewID(fmt.Sprint(i))).Admit(&l, noon, 1)
	}
	saved := subjects.AppendTo(nil)
	for n := range len(saved) {
		if NewSubjects().Restore(saved[:n], noon) == nil {
			t.Fatalf("the first %d of %d bytes were accepted", n, len(saved))
		}
		flipped := bytes.Clone(saved)
		flipped[n] ^= 0x40
		if NewSubjects().Restore(flipped, noon) == nil {
			t.Fatalf("a change of byte %d was accepted", n)
		}
	}
}

// What two processes count side by side adds up, and nothing is counted twice.
func TestSinceAndAdd(t *testing.T) {
	t.Parallel()
	day := &Limit{Key: NewKey(24*time.Hour, false, "day"), Max: 100, Window: 24 * time.Hour}
	minute := &Limit{Key: NewKey(time.Minute, false, "minute"), Max: 100, Window: time.Minute}
	now := int64(1000 * 24 * time.Hour)
	old, fresh := NewSubjects(), NewSubjects()
	a, b := NewID("a"), NewID("b")
	count := func(s *Subjects, id ID, l *Limit, now int64, n int) {
		for range n {
			s.Acquire(id).Admit(l, now, 1)
		}
	}
	count(old, a, day, now, 10)
	count(old, a, minute, now, 10)
	before := old.AppendTo(nil)
	if more, err := Since(before, before); more != nil || err != nil {
		t.Errorf("nothing was counted: %d bytes, %v", len(more), err)
	}
	if err := fresh.Restore(before, now); err != nil {
		t.Fatal(err)
	}
	later := now + int64(time.Minute)
	count(fresh, a, day, now, 3)
	count(fresh, a, minute, later, 3) // a window that the old process is not in yet
	count(old, a, day, now, 5)
	count(old, a, minute, now, 5)
	count(old, b, day, now, 7)
	more, err := Since(before, old.AppendTo(nil))
	if err != nil {
		t.Fatal(err)
	}
	if err := fresh.Add(more, now); err != nil {
		t.Fatal(err)
	}
	for name, f := range map[string]struct {
		id   ID
		l    *Limit
		now  int64
		want uint64
	}{
		"same window":         {a, day, now, 100 - 18 - 1},
		"window that is over": {a, minute, later, 100 - 3 - 1},
		"subject of the old":  {b, day, now, 100 - 7 - 1},
	} {
		if got := fresh.Acquire(f.id).Admit(f.l, f.now, 1).Remaining; got != f.want {
			t.Errorf("%s: %d are left, want %d", name, got, f.want)
		}
	}
	// A window that the old process has begun, and the new one has not.
	count(old, a, minute, later+int64(time.Minute), 9)
	more, err = Since(before, old.AppendTo(nil))
	if err == nil {
		err = fresh.Add(more, now)
	}
	if err != nil {
		t.Fatal(err)
	}
	if got := fresh.Acquire(a).Admit(minute, later+int64(time.Minute), 1).Remaining; got != 100-9-1 {
		t.Errorf("a later window: %d are left, want %d", got, 100-9-1)
	}
	for _, bad := range [][]byte{nil, []byte("x"), more[:len(more)-1]} {
		if err := fresh.Add(bad, now); !errors.Is(err, ErrMalformed) {
			t.Errorf("Add(%q): %v", bad, err)
		}
		if _, err := Since(bad, more); !errors.Is(err, ErrMalformed) {
			t.Errorf("Since(%q, ...): %v", bad, err)
		}
	}
}
