package localstore_test

import (
	"bufio"
	"bytes"
	"crypto/sha256"
	"encoding/binary"
	"errors"
	"fmt"
	"io"
	"log/slog"
	"math/rand/v2"
	"os"
	"os/exec"
	"os/signal"
	"strconv"
	"strings"
	"syscall"
	"testing"
	"time"

	"hansa.dev/hansa/internal/keys"
	"hansa.dev/hansa/internal/localstore"
)

// Tests that need a process of their own run this test binary again with these variables set.
const (
	childMode = "LOCALSTORE_TEST_CHILD"
	childDir  = "LOCALSTORE_TEST_DIR"
	childSeq  = "LOCALSTORE_TEST_SEQ"
)

func TestMain(m *testing.M) {
	switch os.Getenv(childMode) {
	case "write":
		childWrites()
	case "full":
		childFillsDisk()
	default:
		os.Exit(m.Run())
	}
}

func childSealer(check func(error)) *keys.Sealer {
	sealer, err := keys.NewSealer(testKey)
	check(err)
	return sealer
}

func child(t *testing.T, mode, dir string, seq uint64) *exec.Cmd {
	t.Helper()
	cmd := exec.CommandContext(t.Context(), os.Args[0])
	cmd.Env = append(os.Environ(), childMode+"="+mode, childDir+"="+dir, childSeq+"="+strconv.FormatUint(seq, 10))
	return cmd
}

// payloadOf makes bytes that depend on seq alone, of very different lengths.
func payloadOf(seq uint64) []byte {
	rng := rand.New(rand.NewPCG(seq, 0))
	seed := sha256.Sum256(binary.BigEndian.AppendUint64(nil, seq))
	return bytes.Repeat(seed[:], rng.IntN(150_000))
}

// childWrites saves generations, deltas, shards and log records without end and tells on standard output what has
// been acknowledged. The parent kills it at some point.
func childWrites() {
	check := func(err error) {
		if err != nil {
			fmt.Fprintln(os.Stderr, "child:", err)
			os.Exit(1)
		}
	}
	seq, err := strconv.ParseUint(os.Getenv(childSeq), 10, 64)
	check(err)
	s, err := localstore.Open(os.Getenv(childDir), childSealer(check), slog.New(slog.DiscardHandler))
	check(err)
	shards, err := s.Shards("credentials")
	check(err)
	for {
		seq++
		n, err := s.SaveGeneration(localstore.Meta{Epoch: 1, Seq: seq}, func(w io.Writer) error {
			payload := payloadOf(seq)
			_, err := w.Write(payload[:len(payload)/2])
			check(err)
			fmt.Println("half generation")
			_, err = w.Write(payload[len(payload)/2:])
			return err
		})
		check(err)
		fmt.Println("generation", seq)
		for range 3 {
			seq++
			_, err := s.AppendDelta(n, localstore.Meta{Epoch: 1, Seq: seq}, payloadOf(seq))
			check(err)
			fmt.Println("generation", seq)
		}
		// Every batch gives all ten shards the same content, so that a half batch would show.
		check(shards.Replace(true, func(put func(uint16, []byte) error) error {
			for i := range uint16(10) {
				content := append(binary.BigEndian.AppendUint64(nil, seq), make([]byte, 200_000)...)
				if err := put(i, content); err != nil {
					return err
				}
				if i == 5 {
					fmt.Println("half shards")
				}
			}
			return nil
		}))
		fmt.Println("shards", seq)
		for range 3 {
			seq++
			check(shards.Append(binary.BigEndian.AppendUint64(nil, seq)))
			fmt.Println("log", seq)
		}
	}
}

func TestKilledWhileWriting(t *testing.T) {
	t.Parallel()
	rounds := 12
	if os.Getenv("HANSA_SLOW") == "1" {
		rounds = 300
	}
	dir := t.TempDir()
	acked := map[string]uint64{}
	rng := rand.New(rand.NewPCG(uint64(os.Getpid()), 1))
	for round := range rounds {
		top := max(acked["generation"], acked["shards"], acked["log"])
		cmd := child(t, "write", dir, top+1000)
		out, err := cmd.StdoutPipe()
		if err != nil {
			t.Fatal(err)
		}
		if err := cmd.Start(); err != nil {
			t.Fatal(err)
		}
		lines := bufio.NewScanner(out)
		if !lines.Scan() {
			t.Fatalf("round %d: the child acknowledged nothing", round)
		}
		kill := func() { _ = cmd.Process.Kill() } // ends the scan below; if it cannot be killed the test times out
		// A third of the children die in the midst of a generation, a third in the midst of a batch of shards, the others
		// at any moment.
		at := []string{"half generation", "half shards", ""}[round%3]
		passed := rng.IntN(6)
		timer := time.AfterFunc(time.Hour, kill)
		if at == "" {
			timer.Reset(time.Duration(rng.IntN(60_000)) * time.Microsecond)
		}
		for more := true; more; more = lines.Scan() {
			if lines.Text() == at {
				if passed--; passed < 0 {
					kill()
				}
			}
			what, number, _ := strings.Cut(lines.Text(), " ")
			if seq, err := strconv.ParseUint(number, 10, 64); err == nil {
				acked[what] = seq
			}
		}
		timer.Stop()
		var exit *exec.ExitError
		if err := cmd.Wait(); !errors.As(err, &exit) || exit.Sys().(syscall.WaitStatus).Signal() != syscall.SIGKILL {
			t.Fatalf("round %d: child ended with %v, want SIGKILL", round, err)
		}
		checkAfterKill(t, round, dir, acked)
	}
	t.Logf("after %d kills: acknowledged %v", rounds, acked)
}

func checkAfterKill(t *testing.T, round int, dir string, acked map[string]uint64) {
	t.Helper()
	s := open(t, dir)
	defer closeStore(t, s)
	first := true
	for g, err := range s.Generations() {
		if err != nil {
			t.Fatalf("round %d: %v", round, err)
		}
		last := g.Meta.Seq
		if !bytes.Equal(g.Payload, payloadOf(g.Meta.Seq)) {
			t.Fatalf("round %d: generation of seq %d has another content", round, g.Meta.Seq)
		}
		for _, d := range g.Deltas {
			if d.Meta.Seq != last+1 || !bytes.Equal(d.Bytes, payloadOf(d.Meta.Seq)) {
				t.Fatalf("round %d: delta %d after %d, or with another content", round, d.Meta.Seq, last)
			}
			last = d.Meta.Seq
		}
		if first && last < acked["generation"] {
			t.Fatalf("round %d: newest generation is at %d, but %d was acknowledged", round, last, acked["generation"])
		}
		first = false
	}
	shards := shardsOf(t, s)
	var seqs []uint64
	for _, shard := range shards.List() {
		b, err := shards.Read(shard)
		if err != nil {
			t.Fatal(err)
		}
		seqs = append(seqs, binary.BigEndian.Uint64(b))
	}
	base := uint64(0)
	if len(seqs) > 0 {
		base = seqs[0]
	}
	for _, seq := range seqs {
		if len(seqs) != 10 || seq != base {
			t.Fatalf("round %d: half a batch of shards is visible: %d", round, seqs)
		}
	}
	last := base
	for r, err := range shards.Log() {
		if err != nil {
			t.Fatal(err)
		}
		if seq := binary.BigEndian.Uint64(r); seq <= last {
			t.Fatalf("round %d: log has %d after %d", round, seq, last)
		} else {
			last = seq
		}
	}
	if base < acked["shards"] || last < acked["log"] {
		t.Fatalf("round %d: shards are at %d, log at %d, but %v was acknowledged", round, base, last, acked)
	}
	if f := s.Status().Faults; len(f) > 0 {
		t.Fatalf("round %d: a kill looks like damage: %+v", round, f)
	}
}

// childFillsDisk lets the kernel refuse to write files beyond 200 kB, as a full disk refuses at any byte, and checks
// that nothing of what was there is lost. Exit status 0: all is well.
func childFillsDisk() {
	check := func(err error) {
		if err != nil {
			fmt.Fprintln(os.Stderr, "child:", err)
			os.Exit(1)
		}
	}
	signal.Ignore(syscall.SIGXFSZ)
	s, err := localstore.Open(os.Getenv(childDir), childSealer(check), slog.New(slog.DiscardHandler))
	check(err)
	check(syscall.Setrlimit(syscall.RLIMIT_FSIZE, &syscall.Rlimit{Cur: 200_000, Max: 200_000}))
	check(diskRunsFull(s))
	check(s.Close())
	os.Exit(0)
}

// diskRunsFull writes until the disk refuses, in each of the ways the store writes, and checks that what was
// acknowledged stays readable. At least 300 kB must be too much for the disk and 100 kB not.
func diskRunsFull(s *localstore.Store) error {
	n, err := s.SaveGeneration(localstore.Meta{Epoch: 1, Seq: 1}, func(w io.Writer) error {
		_, err := w.Write(make([]byte, 20_000))
		return err
	})
	if err != nil {
		return err
	}
	shards, err := s.Shards("credentials")
	if err != nil {
		return err
	}
	put := func(size int) error {
		return shards.Replace(true, func(put func(uint16, []byte) error) error { return put(1, make([]byte, size)) })
	}
	if err := put(1000); err != nil {
		return err
	}
	_, genErr := s.SaveGeneration(localstore.Meta{Epoch: 1, Seq: 9}, func(w io.Writer) error {
		_, err := w.Write(make([]byte, 300_000))
		return err
	})
	deltas, records := 0, 0
	var deltaErr, logErr error
	for deltaErr == nil && deltas < 100 {
		if _, deltaErr = s.AppendDelta(n, localstore.Meta{Epoch: 1, Seq: uint64(2 + deltas)}, make([]byte, 7_000)); deltaErr == nil {
			deltas++
		}
	}
	for logErr == nil && records < 100 {
		if logErr = shards.Append(make([]byte, 7_000)); logErr == nil {
			records++
		}
	}
	for what, err := range map[string]error{"generation": genErr, "delta": deltaErr, "shards": put(300_000), "log": logErr} {
		if !errors.Is(err, localstore.ErrFull) {
			return fmt.Errorf("write of a %s that does not fit: %w, want ErrFull", what, err)
		}
	}
	for g, err := range s.Generations() {
		if err != nil || g.Meta.Seq != 1 || len(g.Payload) != 20_000 || len(g.Deltas) != deltas {
			return fmt.Errorf("generation after the disk was full: %+v, %w, want seq 1 with %d deltas", g, err, deltas)
		}
	}
	if b, err := shards.Read(1); err != nil || len(b) != 1000 {
		return fmt.Errorf("shard after the disk was full: %d bytes, %w, want 1000", len(b), err)
	}
	got := 0
	for _, err := range shards.Log() {
		if err != nil {
			return err
		}
		got++
	}
	if got != records {
		return fmt.Errorf("log after the disk was full: %d records, want %d", got, records)
	}
	if len(s.Status().Faults) > 0 {
		return fmt.Errorf("faults after the disk was full: %+v", s.Status().Faults)
	}
	return nil
}

func TestFullDiskByLimit(t *testing.T) {
	t.Parallel()
	if out, err := child(t, "full", t.TempDir(), 0).CombinedOutput(); err != nil {
		t.Errorf("child: %v\n%s", err, out)
	}
}

// TestFullDisk is the same on a real full file system, which only root can make, and with the disk freed again.
func TestFullDisk(t *testing.T) {
	t.Parallel()
	if os.Getuid() != 0 {
		t.Skip("needs root to mount a small file system; TestFullDiskByLimit covers the rest")
	}
	dir := t.TempDir()
	if err := syscall.Mount("tmpfs", dir, "tmpfs", 0, "size=256k"); err != nil {
		t.Skipf("mount a small file system: %v", err)
	}
	t.Cleanup(func() {
		if err := syscall.Unmount(dir, syscall.MNT_DETACH); err != nil {
			t.Error(err)
		}
	})
	s := open(t, dir)
	if err := diskRunsFull(s); err != nil {
		t.Fatal(err)
	}
	if err := syscall.Mount("tmpfs", dir, "tmpfs", syscall.MS_REMOUNT, "size=1m"); err != nil {
		t.Fatalf("make the file system larger: %v", err)
	}
	if err := shardsOf(t, s).Append([]byte("more")); err != nil {
		t.Errorf("append after space came back: %v", err)
	}
	save(t, s, 100, make([]byte, 30_000))
	closeStore(t, s)
	want(t, "generations after space came back", seqs(t, open(t, dir))[0], "100")
}
