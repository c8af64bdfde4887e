package main

import (
	"bytes"
	"context"
	"errors"
	"fmt"
	"io/fs"
	"os"
	"os/exec"
	"path/filepath"
	"strconv"
	"strings"
	"syscall"
	"time"
)

// stopTime is how long a process gets to end by itself.
const stopTime = 15 * time.Second

// process is a running program with all its children. It is for one goroutine.
type process struct {
	name  string
	cmd   *exec.Cmd
	ended chan struct{} // closed when the program has ended
	log   string        // the file with what it printed
}

// startProcess starts a program whose output goes to the file <dir>/<name>.log. It dies with this command. A program in Go
// tells there of its garbage collections, too.
func startProcess(dir, name string, argv ...string) (*process, error) {
	p := &process{name: name, ended: make(chan struct{}), log: filepath.Join(dir, name+".log")}
	log, err := os.OpenFile(p.log, os.O_CREATE|os.O_APPEND|os.O_WRONLY, 0o644)
	if err != nil {
		return nil, err
	}
	defer log.Close() // the program has its own copy
	p.cmd = exec.Command(argv[0], argv[1:]...)
	p.cmd.Dir = dir
	p.cmd.Env = append(os.Environ(), "GODEBUG=gctrace=1")
	p.cmd.Stdout, p.cmd.Stderr = log, log
	p.cmd.SysProcAttr = &syscall.SysProcAttr{Pdeathsig: syscall.SIGKILL, Setpgid: true}
	if err := p.cmd.Start(); err != nil {
		return nil, fmt.Errorf("start %s: %w", name, err)
	}
	go func() {
		_ = p.cmd.Wait() // how it ended is seen by whoever needed it to run
		close(p.ended)
	}()
	return p, nil
}

// stop asks the program to end, and kills it after stopTime and its children in any case.
func (p *process) stop() {
	_ = p.cmd.Process.Signal(syscall.SIGTERM) // an error means that it has ended
	timer := time.NewTimer(stopTime)
	defer timer.Stop()
	select {
	case <-p.ended:
	case <-timer.C:
	}
	_ = syscall.Kill(-p.cmd.Process.Pid, syscall.SIGKILL) // its group; an error means that nobody is left
	<-p.ended
}

// fault returns an error that says what went wrong with the program, with the end of what it printed.
func (p *process) fault(what string) error {
	text, _ := os.ReadFile(p.log)
	if len(text) > 2000 {
		text = text[len(text)-2000:]
	}
	return fmt.Errorf("%s %s; it printed:\n%s", p.name, what, text)
}

// waitFor polls until ready returns true, the program ends or the context does.
func (p *process) waitFor(ctx context.Context, what string, ready func() bool) error {
	tick := time.NewTicker(5 * time.Millisecond)
	defer tick.Stop()
	for !ready() {
		select {
		case <-ctx.Done():
			return p.fault("is not " + what + " in time")
		case <-p.ended:
			return p.fault("ended before it was " + what)
		case <-tick.C:
		}
	}
	return nil
}

// usage is what a process and its children have used.
type usage struct {
	cpu time.Duration // user and system, since they started
	rss int64         // now, in bytes
}

// usage adds up the program and its descendants. Those that have ended count with their parent.
func (p *process) usage() (usage, error) {
	stats, err := readStats()
	if err != nil {
		return usage{}, err
	}
	root, ok := stats[p.cmd.Process.Pid]
	if !ok {
		return usage{}, p.fault("has ended")
	}
	u := usage{}
	for pid, s := range stats {
		for a := pid; a != 0; a = stats[a].parent {
			if a == root.pid {
				u.cpu += s.cpu
				u.rss += s.rss
				break
			}
		}
	}
	return u, nil
}

// peakRSS returns the most memory that the program itself has had resident since it started or since resetPeak.
func (p *process) peakRSS() (int64, error) {
	text, err := os.ReadFile(fmt.Sprintf("/proc/%d/status", p.cmd.Process.Pid))
	if err != nil {
		return 0, err
	}
	for line := range bytes.Lines(text) {
		if value, ok := bytes.CutPrefix(line, []byte("VmHWM:")); ok {
			kb, err := strconv.ParseInt(strings.TrimSuffix(strings.TrimSpace(string(value)), " kB"), 10, 64)
			return kb * 1024, err
		}
	}
	return 0, errors.New("no VmHWM in the status of " + p.name)
}

// resetPeak begins a new measurement for peakRSS.
func (p *process) resetPeak() error {
	return os.WriteFile(fmt.Sprintf("/proc/%d/clear_refs", p.cmd.Process.Pid), []byte("5"), 0)
}

// procStat is what bench needs of /proc/PID/stat.
type procStat struct {
	pid, parent int
	cpu         time.Duration
	rss         int64
}

// readStats returns the statistics of all processes by their id.
func readStats() (map[int]procStat, error) {
	files, err := filepath.Glob("/proc/[0-9]*/stat")
	if err != nil {
		return nil, err
	}
	stats := make(map[int]procStat, len(files))
	for _, file := range files {
		text, err := os.ReadFile(file)
		if errors.Is(err, fs.ErrNotExist) || errors.Is(err, syscall.ESRCH) {
			continue // it has ended meanwhile
		}
		if err != nil {
			return nil, err
		}
		s, err := parseStat(string(text))
		if err != nil {
			return nil, fmt.Errorf("read %s: %w", file, err)
		}
		stats[s.pid] = s
	}
	return stats, nil
}

// parseStat reads the content of /proc/PID/stat (proc_pid_stat(5)). A tick is 10 ms; the kernel scales the sum of user
// and system time to what the scheduler measured, so that the sum is exact to a tick.
func parseStat(text string) (procStat, error) {
	const tick = 10 * time.Millisecond
	open, shut := strings.IndexByte(text, '('), strings.LastIndexByte(text, ')') // the name may hold anything
	if open < 0 || shut < open {
		return procStat{}, fmt.Errorf("no name in %q", text)
	}
	pid, err := strconv.Atoi(strings.TrimSpace(text[:open]))
	if err != nil {
		return procStat{}, err
	}
	fields := strings.Fields(text[shut+1:]) // fields[0] is the third, the state
	if len(fields) < 22 {
		return procStat{}, fmt.Errorf("%d fields after the name in %q", len(fields), text)
	}
	field := func(n int) int64 {
		v, convErr := strconv.ParseInt(fields[n-3], 10, 64)
		err = errors.Join(err, convErr)
		return v
	}
	s := procStat{
		pid:    pid,
		parent: int(field(4)),
		// Its own, and that of children that have ended and been waited for.
		cpu: time.Duration(field(14)+field(15)+field(16)+field(17)) * tick,
		rss: field(24) * int64(os.Getpagesize()),
	}
	return s, err
}
