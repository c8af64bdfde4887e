package main

import (
	"context"
	"fmt"
	"os"
	"regexp"
	"strconv"
	"time"
)

// memory is what a program in Go holds when nothing happens.
type memory struct {
	rss  int64 // resident, in bytes
	heap int64 // what the last garbage collection left, in bytes, to a megabyte
}

const (
	// gcPeriod is the longest time between two garbage collections of a program that does nothing.
	gcPeriod = 2 * time.Minute
	// scavengeTime is how long the runtime may take to give back what a collection has freed.
	scavengeTime = 15 * time.Second
)

// settled waits until the runtime collects garbage because there was no reason to for gcPeriod, and some time longer, so that what
// the program has used only for a while is given back. It returns what the program then holds.
func (p *process) settled(ctx context.Context) (memory, error) {
	ctx, cancel := context.WithTimeout(ctx, 5*gcPeriod)
	defer cancel()
	tick := time.NewTicker(time.Second)
	defer tick.Stop()
	before, err := p.collections()
	now, rested := before, time.Duration(0)
	for ; err == nil && rested < scavengeTime; now, err = p.collections() {
		select {
		case <-ctx.Done():
			return memory{}, p.fault("is not at rest in time")
		case <-p.ended:
			return memory{}, p.fault("has ended")
		case <-tick.C:
		}
		if now.forced > before.forced {
			rested += time.Second
		}
	}
	if err != nil {
		return memory{}, err
	}
	u, err := p.usage()
	return memory{rss: u.rss, heap: now.left}, err
}

// collections is what a program has told of its garbage collections.
type collections struct {
	forced int   // how many there were because there was no other for gcPeriod
	left   int64 // what the last of all left, in bytes
}

// What the runtime prints of a collection (GODEBUG=gctrace=1 in the documentation of package runtime): the third of the three
// sizes is what is left.
var (
	gcLine   = regexp.MustCompile(`(?m)^gc [0-9]+ @.* [0-9]+->[0-9]+->([0-9]+) MB, `)
	gcForced = regexp.MustCompile(`(?m)^GC forced$`)
)

func (p *process) collections() (collections, error) {
	text, err := os.ReadFile(p.log)
	if err != nil {
		return collections{}, err
	}
	return parseCollections(text)
}

func parseCollections(text []byte) (collections, error) {
	c := collections{forced: len(gcForced.FindAllIndex(text, -1))}
	lines := gcLine.FindAllSubmatch(text, -1)
	if len(lines) == 0 {
		return c, nil
	}
	mb, err := strconv.ParseInt(string(lines[len(lines)-1][1]), 10, 64)
	if err != nil {
		return c, fmt.Errorf("garbage collection in the log: %w", err)
	}
	c.left = mb << 20
	return c, nil
}
