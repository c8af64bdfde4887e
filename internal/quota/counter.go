package quota

import (
	"sync/atomic"
	"time"
)

// A cell is one word: the number of a window in the upper 24 bits, the count of that window in the lower 40. Both
// change in one compare-and-swap, so a count never lands in another window than the one it was admitted to, and
// nothing is ever admitted beyond the limit, however many ask at once.
type cell struct{ word atomic.Uint64 }

const (
	countBits  = 40
	windowBits = 64 - countBits
	countMask  = 1<<countBits - 1
	windowMask = 1<<windowBits - 1
)

func pack(window, count uint64) uint64     { return window<<countBits | count }
func unpack(w uint64) (num, count uint64)  { return w >> countBits, w & countMask }
func windowNumber(now, length int64) int64 { return now / length }

// counter is the count of one limit of one subject. A fixed window uses cells[0] only; a sliding one uses the two
// in turn, by the parity of the window's number, so that the window before the current one stays readable.
type counter struct {
	key   Key
	cells [2]cell
	next  *counter // set before the counter is visible
}

// admit counts cost if the limit allows it.
func (c *counter) admit(l *Limit, now int64, cost uint64) Decision {
	if l.Sliding {
		return c.admitSliding(l, now, cost)
	}
	return c.admitFixed(l, now, cost)
}

func (c *counter) admitFixed(l *Limit, now int64, cost uint64) Decision {
	limit := min(l.Max, MaxCount)
	length := int64(l.Window)
	n := windowNumber(now, length)
	reset := (n+1)*length - now
	num := uint64(n) & windowMask
	for {
		old := c.cells[0].word.Load()
		have, count := unpack(old)
		switch have {
		case num:
		case (num + 1) & windowMask:
			// The clock stepped back over the start of the window: go on counting in the later one, or the step
			// would hand out a second helping.
			num, reset = have, reset+length
		default:
			count = 0
		}
		if cost > limit || count > limit-cost {
			return Decision{Limit: limit, Remaining: left(limit, count), Reset: time.Duration(reset)}
		}
		if c.cells[0].word.CompareAndSwap(old, pack(num, count+cost)) {
			return Decision{OK: true, Limit: limit, Remaining: limit - count - cost, Reset: time.Duration(reset)}
		}
	}
}

// admitSliding estimates the count of the window that ends now from the counts of the two aligned windows that it
// touches, taking the requests of the earlier one as evenly spread.
func (c *counter) admitSliding(l *Limit, now int64, cost uint64) Decision {
	limit := min(l.Max, MaxCount)
	length := int64(l.Window)
	n := windowNumber(now, length)
	into := now - n*length // time since the start of the current aligned window
	num, before := uint64(n)&windowMask, uint64(n-1)&windowMask
	current := &c.cells[n&1].word

	var earlier uint64
	if have, count := unpack(c.cells[(n-1)&1].word.Load()); have == before {
		earlier = count
	}
	carried := share(earlier, length-into, length)
	for {
		old := current.Load()
		have, count := unpack(old)
		if have != num {
			count = 0
		}
		used := count + carried
		if cost > limit || used > limit-cost {
			return Decision{
				Limit: limit, Remaining: left(limit, used),
				Reset: time.Duration(waitSliding(limit, cost, count, earlier, into, length)),
			}
		}
		if current.CompareAndSwap(old, pack(num, count+cost)) {
			return Decision{OK: true, Limit: limit, Remaining: limit - used - cost, Reset: l.Window}
		}
	}
}

// waitSliding is how long it takes until cost passes if nothing else is admitted meanwhile.
func waitSliding(limit, cost, count, earlier uint64, into, length int64) int64 {
	if cost > limit {
		return length // never; any figure is as good
	}
	if count <= limit-cost {
		// Enough of the earlier window must slide out: its share has to fall to what is free beside count.
		return length - into - largestPart(limit-cost-count, earlier, length)
	}
	// The current window alone is too much: it has to become the earlier one and slide out in its turn.
	return length - into + length - largestPart(limit-cost, count, length)
}

// share is the part of count that belongs to part of length, rounded up so that estimates never fall short.
func share(count uint64, part, length int64) uint64 {
	if count == 0 || part <= 0 {
		return 0
	}
	return uint64(float64(count)*(float64(part)/float64(length)) + 0.999999)
}

// largestPart is the largest part of length whose share of count is at most free.
func largestPart(free, count uint64, length int64) int64 {
	if count <= free {
		return length
	}
	part := int64(float64(length) * (float64(free) / float64(count)))
	for part > 0 && share(count, part, length) > free {
		part -= max(1, length>>20) // floating point rounded up; step back a millionth of the window
	}
	return max(part, 0)
}

func left(limit, used uint64) uint64 {
	if used >= limit {
		return 0
	}
	return limit - used
}
