package certs

import (
	"context"
	"errors"
	"fmt"
	"io/fs"
	"log/slog"
	"os"
	"path/filepath"
	"slices"
	"strings"
	"sync"
	"time"
)

// Pair is a certificate chain and a key, in two PEM files.
type Pair struct{ CertFile, KeyFile string }

// FilesOptions configure Files.
type FilesOptions struct {
	// Store receives the certificates, under the source SourceFiles.
	Store *Store
	// Pairs are certificates to show for the names that they carry. The first is also the default certificate.
	Pairs []Pair
	// Dir is a folder of pairs, NAME.crt and NAME.key. The pair "default" is the default certificate, unless there are
	// Pairs. Default: none.
	Dir string
	// Interval is how often to look for changes. A look that takes long makes the next one wait longer, for twenty times
	// what it took. Default: 2 s.
	Interval time.Duration
	// Log receives what is wrong with files. Default: nothing is logged.
	Log *slog.Logger
}

// Files keeps certificates from files, which may be replaced at any time, one after the other or all at once by a
// symbolic link. A pair is taken when its key is the certificate's and neither file changed while it was read; until then
// what was read before stays. A pair that is gone from the folder is gone from the store.
type Files struct {
	opts FilesOptions

	mu    sync.Mutex            // held while looking
	known map[string]*pairState // guarded by mu; by ID of the entry
}

// pairState is what was last seen of a pair.
type pairState struct {
	stamp stamp
	cert  *Certificate // nil: it was never whole
	fault string       // the last fault, to be logged once
}

// stamp tells whether files have been replaced.
type stamp struct{ cert, key fileStamp }

type fileStamp struct {
	modified time.Time
	size     int64
	id       fs.FileInfo // for os.SameFile
}

func (s fileStamp) same(o fileStamp) bool {
	return s.id != nil && o.id != nil && s.modified.Equal(o.modified) && s.size == o.size && os.SameFile(s.id, o.id)
}

func (s stamp) same(o stamp) bool { return s.cert.same(o.cert) && s.key.same(o.key) }

// settled tells whether the files were left alone for long enough that whatever is done to them from now on changes the
// stamp: the clock of file systems is coarse.
func (s stamp) settled(now time.Time) bool {
	return now.Sub(s.cert.modified) > time.Second && now.Sub(s.key.modified) > time.Second
}

// maxFile bounds the size of a file.
const maxFile = 1 << 20

// defaultName is the pair of a folder that is the default certificate.
const defaultName = "default"

// NewFiles reads the files. Every one of Pairs must be good; of those in Dir, what is wrong is logged.
func NewFiles(o FilesOptions) (*Files, error) {
	if o.Store == nil {
		return nil, errors.New("certs: FilesOptions need a Store")
	}
	if o.Interval <= 0 {
		o.Interval = 2 * time.Second
	}
	if o.Log == nil {
		o.Log = slog.New(slog.DiscardHandler)
	}
	f := &Files{opts: o, known: map[string]*pairState{}}
	if o.Dir != "" {
		if _, err := os.ReadDir(o.Dir); err != nil {
			return nil, fmt.Errorf("read the folder of certificates: %w", err)
		}
	}
	if err := f.Look(); err != nil {
		return nil, err
	}
	for _, p := range o.Pairs {
		if s := f.known[pairID(p)]; s.cert == nil {
			return nil, fmt.Errorf("load the certificate %q with the key %q: %s", p.CertFile, p.KeyFile, s.fault)
		}
	}
	return f, nil
}

// Run looks for changes until ctx ends.
func (f *Files) Run(ctx context.Context) error {
	timer := time.NewTimer(f.opts.Interval)
	defer timer.Stop()
	for {
		select {
		case <-ctx.Done():
			return nil
		case <-timer.C:
		}
		began := time.Now()
		if err := f.Look(); err != nil {
			f.opts.Log.Error("the certificates of the folder cannot be read; those that are known stay", slog.Any("err", err))
		}
		timer.Reset(max(f.opts.Interval, 20*time.Since(began)))
	}
}

func pairID(p Pair) string { return "pair/" + p.CertFile }

// Look reads what has changed and hands everything to the store.
func (f *Files) Look() error {
	f.mu.Lock()
	defer f.mu.Unlock()
	var entries []Entry
	changed := false
	present := make(map[string]bool, len(f.known))
	take := func(id string, p Pair, isDefault bool) {
		present[id] = true
		s, news := f.pair(id, p)
		changed = changed || news
		if s.cert != nil {
			entries = append(entries, Entry{ID: id, Certificate: s.cert, Default: isDefault})
		}
	}
	for i, p := range f.opts.Pairs {
		take(pairID(p), p, i == 0)
	}
	names, err := f.dir()
	if err != nil {
		return err
	}
	for _, name := range names {
		p := Pair{filepath.Join(f.opts.Dir, name+".crt"), filepath.Join(f.opts.Dir, name+".key")}
		take("dir/"+name, p, name == defaultName && len(f.opts.Pairs) == 0)
	}
	for id := range f.known {
		if !present[id] {
			delete(f.known, id)
			changed = true
		}
	}
	if !changed {
		return nil
	}
	return f.put(entries)
}

// put hands the entries to the store, without those that it cannot take.
func (f *Files) put(entries []Entry) error {
	entries = slices.DeleteFunc(entries, func(e Entry) bool {
		err := check([]Entry{e})
		if err != nil {
			f.opts.Log.Error("a certificate file is of no use", slog.Any("err", err))
		}
		return err != nil
	})
	return f.opts.Store.Replace(SourceFiles, entries)
}

// dir returns the names of the pairs in the folder, in order. A name with one file only is among them: the other file may
// be on its way.
func (f *Files) dir() ([]string, error) {
	if f.opts.Dir == "" {
		return nil, nil
	}
	files, err := os.ReadDir(f.opts.Dir)
	if err != nil {
		return nil, err
	}
	var names []string
	for _, file := range files {
		if name, ok := strings.CutSuffix(file.Name(), ".crt"); ok && name != "" && name[0] != '.' {
			names = append(names, name)
		}
	}
	slices.Sort(names)
	return names, nil
}

// pair reads a pair again if it has changed. news tells that there is another certificate than before.
func (f *Files) pair(id string, p Pair) (s *pairState, news bool) {
	s = f.known[id]
	if s == nil {
		s = new(pairState)
		f.known[id] = s
	}
	before, err := look(p)
	if err == nil && before.same(s.stamp) {
		return s, false
	}
	var cert *Certificate
	if err == nil {
		cert, err = read(p)
	}
	if after, lookErr := look(p); lookErr != nil || !after.same(before) {
		if err == nil {
			return s, false // somebody is writing; the next look will see the rest
		}
	} else if before.settled(time.Now()) {
		s.stamp = before
	}
	if err != nil {
		if fault := err.Error(); fault != s.fault {
			s.fault = fault
			f.opts.Store.metrics.faults.WithLabelValues(SourceFiles).Inc()
			f.opts.Log.Error("a certificate cannot be taken from its files; the one before stays",
				slog.String("cert_file", p.CertFile), slog.String("key_file", p.KeyFile), slog.Any("err", err))
		}
		return s, false
	}
	s.fault = ""
	if s.cert != nil {
		if s.cert.same(cert) {
			return s, false
		}
		f.opts.Log.Info("a certificate was replaced", slog.String("cert_file", p.CertFile), slog.Time("not_after", cert.NotAfter()))
	}
	s.cert = cert
	return s, true
}

func look(p Pair) (s stamp, err error) {
	if s.cert, err = stampOf(p.CertFile); err != nil {
		return stamp{}, err
	}
	s.key, err = stampOf(p.KeyFile)
	return s, err
}

func stampOf(name string) (fileStamp, error) {
	info, err := os.Stat(name)
	if err != nil {
		return fileStamp{}, err
	}
	if !info.Mode().IsRegular() || info.Size() > maxFile {
		return fileStamp{}, fmt.Errorf("%s is not a file of at most %d bytes", name, maxFile)
	}
	return fileStamp{info.ModTime(), info.Size(), info}, nil
}

func read(p Pair) (*Certificate, error) {
	cert, err := os.ReadFile(p.CertFile)
	if err != nil {
		return nil, err
	}
	key, err := os.ReadFile(p.KeyFile)
	if err != nil {
		return nil, err
	}
	return Parse(cert, key)
}
