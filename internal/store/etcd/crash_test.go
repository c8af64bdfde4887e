package etcd_test

import (
	"bufio"
	"context"
	"fmt"
	"math/rand/v2"
	"os"
	"os/exec"
	"path/filepath"
	"strconv"
	"strings"
	"testing"
	"time"

	"github.com/google/go-cmp/cmp"

	v1 "hansa.dev/hansa/api/v1"
	"hansa.dev/hansa/internal/snapshot"
	"hansa.dev/hansa/internal/store"
	"hansa.dev/hansa/internal/store/etcd"
	"hansa.dev/hansa/internal/store/storetest"
)

// planned is the change set that has a seq in the crash tests: it follows from the seq alone, so that the content at
// any seq can be computed.
type planned struct {
	puts        []*v1.Object
	deletes     []v1.Key
	credentials []snapshot.Credential
	removed     []snapshot.CredentialHash
}

func planOf(seq uint64) planned {
	i := int(seq)
	p := planned{
		puts: []*v1.Object{
			storetest.Backend("acme", fmt.Sprintf("b%d", i%20), strconv.Itoa(i)),
			storetest.Product("acme", "last", strconv.Itoa(i)),
		},
		credentials: []snapshot.Credential{storetest.Credential("acme", "single", i)},
	}
	if i%20 == 3 { // of several pieces
		for j := range 4_000 + i%7*500 {
			p.credentials = append(p.credentials, storetest.Credential("acme", fmt.Sprintf("bulk-%d", i), j))
		}
	}
	if i%20 == 8 { // some of those go
		for j := range 4_000 {
			p.removed = append(p.removed, storetest.Credential("acme", fmt.Sprintf("bulk-%d", i-5), j).Hash)
		}
	}
	if i%6 == 5 { // what the change set before put
		p.deletes = append(p.deletes, v1.Key{Organization: "acme", Kind: v1.KindBackend, Name: fmt.Sprintf("b%d", (i-1)%20)})
	}
	return p
}

// fill puts the change set into tx.
func (p planned) fill(ctx context.Context, tx store.Tx) error {
	if err := storetest.Put(p.puts...)(ctx, tx); err != nil {
		return err
	}
	if err := storetest.Delete(p.deletes...)(ctx, tx); err != nil {
		return err
	}
	for _, h := range p.removed {
		if err := tx.RemoveCredential(ctx, "acme", h); err != nil {
			return err
		}
	}
	return storetest.PutCredentials(p.credentials...)(ctx, tx)
}

// checkCrashed checks that the record holds exactly what the planned change sets up to its seq make, and that no
// acknowledged one is missing.
func checkCrashed(t *testing.T, s *etcd.Store, acknowledged uint64) {
	t.Helper()
	seq := s.State().Version().Seq
	if seq < acknowledged {
		t.Fatalf("the record is at %d, %d was acknowledged", seq, acknowledged)
	}
	resources := make(map[string]string)
	credentials := make(map[snapshot.CredentialHash]snapshot.Credential)
	for i := range seq {
		p := planOf(i + 1)
		for _, o := range p.puts {
			resources[o.Key().String()] = fmt.Sprintf("%d %+v", i+1, o.Spec)
		}
		for _, k := range p.deletes {
			delete(resources, k.String())
		}
		for _, h := range p.removed {
			delete(credentials, h)
		}
		for _, c := range p.credentials {
			credentials[c.Hash] = c
		}
	}
	got := make(map[string]string)
	for _, k := range v1.Kinds() {
		for o := range s.State().List(k.Kind, "", "") {
			got[o.Key().String()] = fmt.Sprintf("%d %+v", o.Metadata.Seq, o.Spec)
		}
	}
	if diff := cmp.Diff(resources, got); diff != "" {
		t.Fatalf("resources at %d (-want +got):\n%s", seq, diff)
	}
	n := 0
	for c := range s.State().Credentials("") {
		if n++; credentials[c.Hash] != c {
			t.Fatalf("credential at %d = %+v, want %+v", seq, c, credentials[c.Hash])
		}
	}
	if n != len(credentials) {
		t.Fatalf("%d credentials at %d, want %d", n, seq, len(credentials))
	}
	next := uint64(0)
	for cs, err := range s.Log(t.Context(), store.Version{Epoch: 1}, s.State().Version()) {
		if err != nil {
			t.Fatalf("log after %d: %v", next, err)
		}
		if next++; cs.Version.Seq != next || cs.NumCredentials != len(planOf(next).credentials)+len(planOf(next).removed) {
			t.Fatalf("log has %v with %d credentials after %d", cs.Version, cs.NumCredentials, next-1)
		}
	}
	if next != seq {
		t.Fatalf("the log ends at %d, the record is at %d", next, seq)
	}
}

// childWrite commits planned change sets until it is killed, and tells the seq of each once it is acknowledged.
func childWrite(dir string) error {
	ctx := context.Background()
	s, err := etcd.Open(ctx, etcd.Options{Dir: dir, Reserve: -1})
	if err != nil {
		return err
	}
	for {
		base := s.State().Version()
		v, err := storetest.TryCommit(ctx, s, base, planOf(base.Seq+1).fill)
		if err != nil {
			return err
		}
		if _, err := fmt.Println("acknowledged", v.Seq); err != nil {
			return err
		}
		if v.Seq%15 == 0 {
			if err := s.Maintain(ctx); err != nil {
				return err
			}
		}
	}
}

// writer is a process that runs childWrite.
type writer struct {
	cmd   *exec.Cmd
	lines *bufio.Scanner
	last  uint64 // the last seq that it acknowledged
}

func startWriter(t *testing.T, dir string) *writer {
	t.Helper()
	return startPart(t, "write", dir)
}

// startPart starts a part of a test that tells what it has committed.
func startPart(t *testing.T, part, dir string) *writer {
	t.Helper()
	w := &writer{cmd: child(t, part, dir)}
	out, err := w.cmd.StdoutPipe()
	if err != nil {
		t.Fatal(err)
	}
	w.lines = bufio.NewScanner(out)
	if err := w.cmd.Start(); err != nil {
		t.Fatal(err)
	}
	return w
}

// next waits for one more acknowledgement; it returns false if the process ended.
func (w *writer) next(t *testing.T) bool {
	t.Helper()
	if !w.lines.Scan() {
		return false
	}
	seq, ok := strings.CutPrefix(w.lines.Text(), "acknowledged ")
	n, err := strconv.ParseUint(seq, 10, 64)
	if !ok || err != nil {
		t.Fatalf("writer said %q", w.lines.Text())
	}
	w.last = n
	return true
}

// kill kills the process and reads what it said before.
func (w *writer) kill(t *testing.T) {
	t.Helper()
	if err := w.cmd.Process.Kill(); err != nil {
		t.Fatal(err)
	}
	for w.next(t) {
	}
	w.cmd.Wait() // it was killed
}

// TestKill kills a writing process at random moments. Every acknowledged change set must be there afterwards, and
// none must be half visible.
func TestKill(t *testing.T) {
	t.Parallel()
	writes, kills := uint64(60), 4
	if os.Getenv("HANSA_SLOW") != "" && !raced() { // under the race detector every start takes seconds
		writes, kills = 1000, 15
	}
	seed := uint64(time.Now().UnixNano())
	t.Logf("seed %d", seed)
	rng := rand.New(rand.NewPCG(seed, 0))
	dir := t.TempDir()
	last := uint64(0)
	for k := 0; k < kills || last < writes; k++ {
		w := startWriter(t, dir)
		// At least one write, then a moment that is not bound to any: within a commit, an image, a collection.
		for range 1 + rng.Uint64N(2*writes/uint64(kills)) {
			if !w.next(t) {
				t.Fatal("the writer ended by itself")
			}
		}
		<-time.After(time.Duration(rng.Int64N(int64(20 * time.Millisecond))))
		w.kill(t)
		last = max(last, w.last)
		s, err := etcd.Open(t.Context(), etcd.Options{Dir: dir})
		if err != nil {
			t.Fatal(err)
		}
		checkCrashed(t, s, last)
		if t.Failed() {
			return
		}
		closeStore(t, s)
	}
	t.Logf("%d writes acknowledged", last)
}

// requireReal skips a test that needs root and a device of the kernel, unless the environment asks for such tests.
func requireReal(t *testing.T) {
	t.Helper()
	if os.Getenv("HANSA_REAL") == "" {
		t.Skip("needs root and /dev/fuse: set HANSA_REAL=1")
	}
}

// TestPowerCut lets a process write to a disk that loses what was not synced, and cuts the power at random moments,
// also while the process is starting.
func TestPowerCut(t *testing.T) {
	requireReal(t)
	t.Parallel()
	writes, cuts := uint64(50), 4
	if os.Getenv("HANSA_SLOW") != "" {
		writes, cuts = 300, 12
	}
	for name, keep := range map[string]float64{"unsynced writes are lost": 0, "unsynced writes are lost or kept by block": 0.5} {
		t.Run(name, func(t *testing.T) {
			t.Parallel()
			seed := uint64(time.Now().UnixNano())
			t.Logf("seed %d", seed)
			rng := rand.New(rand.NewPCG(seed, 0))
			disk := newLossyDisk()
			last := uint64(0)
			for c := 0; c < cuts || last < writes; c++ {
				mountpoint := t.TempDir()
				unmount := disk.mount(t, mountpoint)
				w := startWriter(t, filepath.Join(mountpoint, "record"))
				if c%4 == 0 { // while it starts, the first time with an empty disk
					<-time.After(time.Duration(rng.Int64N(int64(200 * time.Millisecond))))
				} else {
					for range 1 + rng.Uint64N(2*writes/uint64(cuts)) {
						if !w.next(t) {
							t.Fatal("the writer ended by itself")
						}
					}
					<-time.After(time.Duration(rng.Int64N(int64(20 * time.Millisecond))))
				}
				disk.cut()
				w.kill(t)
				unmount()
				disk.restart(rng, keep)
				last = max(last, w.last)
				checkDisk(t, disk, last)
			}
			t.Logf("%d writes acknowledged, %d syncs", last, disk.syncs)
		})
	}
}

// TestPowerCutAtEverySync cuts the power after the first sync of a new record, after the second, and so on: within
// the first start, change sets of one and of many pieces, and images.
func TestPowerCutAtEverySync(t *testing.T) {
	requireReal(t)
	t.Parallel()
	rng := rand.New(rand.NewPCG(1, 0))
	for at := 1; at < 100; at += 3 {
		disk := newLossyDisk()
		disk.cutAt = at
		mountpoint := t.TempDir()
		unmount := disk.mount(t, mountpoint)
		w := startWriter(t, filepath.Join(mountpoint, "record"))
		<-disk.isOff
		w.kill(t)
		unmount()
		disk.restart(rng, rng.Float64())
		checkDisk(t, disk, w.last)
	}
}

// checkDisk checks the record on a disk, from a copy of the disk.
func checkDisk(t *testing.T, disk *lossyDisk, acknowledged uint64) {
	t.Helper()
	dir := t.TempDir()
	if err := disk.export(dir); err != nil {
		t.Fatal(err)
	}
	s, err := etcd.Open(t.Context(), etcd.Options{Dir: filepath.Join(dir, "record"), Reserve: -1})
	if err != nil {
		t.Fatalf("open after the power was cut at sync %d: %v", disk.syncs, err)
	}
	checkCrashed(t, s, acknowledged)
	closeStore(t, s)
}
