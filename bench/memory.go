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
	before, err := p.collections()
	if err != nil {
		return memory{}, err
	}
	ctx, cancel := context.WithTimeout(ctx, 5*gcPeriod)
	defer cancel()
	var after []collection
	err = p.waitFor(ctx, "at rest", func() bool {
		after, err = p.collections()
		return err == nil && len(after) > len(before) && after[len(after)-1].forced
	})
	if err != nil {
		return memory{}, err
	}
	timer := time.NewTimer(scavengeTime)
	defer timer.Stop()
	select {
	case <-timer.C:
	case <-ctx.Done():
		return memory{}, ctx.Err()
	}
	u, err := p.usage()
	return memory{rss: u.rss, heap: after[len(after)-1].left}, err
}

// collection is one garbage collection.
type collection struct {
	left   int64 // bytes
	forced bool  // there was none for gcPeriod
}

// gcLine is what the runtime prints of a collection (GODEBUG=gctrace=1 in the documentation of package runtime): the third of
// the three sizes is what is left.
var gcLine = regexp.MustCompile(`(?m)^gc [0-9]+ @.* [0-9]+->[0-9]+->([0-9]+) MB, .*?(\(forced\))?$`)

// collections returns every garbage collection so far.
func (p *process) collections() ([]collection, error) {
	text, err := os.ReadFile(p.log)
	if err != nil {
		return nil, err
	}
	return parseCollections(text)
}

func parseCollections(text []byte) ([]collection, error) {
	var all []collection
	for _, m := range gcLine.FindAllSubmatch(text, -1) {
		mb, err := strconv.ParseInt(string(m[1]), 10, 64)
		if err != nil {
			return nil, fmt.Errorf("garbage collection in the log: %w", err)
		}
		all = append(all, collection{left: mb << 20, forced: len(m[2]) > 0})
	}
	return all, nil
}
