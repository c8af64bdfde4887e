package etcd_test

import (
	"errors"
	"fmt"
	"math/rand/v2"
	"strconv"
	"sync"
	"testing"
	"time"

	"github.com/anishathalye/porcupine"

	"hansa.dev/hansa/internal/store"
	"hansa.dev/hansa/internal/store/storetest"
)

// registerInput is one operation on the registers of TestLinearizable: with base a write upon that seq, else a read.
type registerInput struct {
	write    bool
	base     uint64 // the seq that the write is based upon
	register int
	value    string
}

// registerOutput is what came of it: for a write whether it committed, for a read what the state showed.
type registerOutput struct {
	committed, unknown bool
	seq                uint64
	values             [registers]string
}

const registers = 3

// registerState is the content of the record as the model sees it.
type registerState struct {
	seq    uint64
	values [registers]string
}

// TestLinearizable lets clients read the state and commit upon it, with answers that get lost, and checks that there
// is one order of all that they did in which every read shows the last write and every write was upon the last head.
func TestLinearizable(t *testing.T) {
	t.Parallel()
	const clients, operations = 4, 60
	s, kv := openFlaky(t)
	kv.sent = true
	s.SetCommitTimeout(time.Minute)
	var mu sync.Mutex // guards history
	var history []porcupine.Operation
	start := time.Now()
	var wait sync.WaitGroup
	for client := range clients {
		rng := rand.New(rand.NewPCG(uint64(client), 7))
		wait.Go(func() {
			for i := range operations {
				in := registerInput{write: rng.IntN(2) == 0, register: rng.IntN(registers), value: fmt.Sprintf("%d-%d", client, i)}
				if rng.IntN(8) == 0 {
					kv.lose.Store(1)
				}
				call := time.Since(start)
				out := registerOutput{}
				st := s.State()
				if in.write {
					in.base = st.Version().Seq
					call = time.Since(start)
					v, err := storetest.TryCommit(t.Context(), s, st.Version(),
						storetest.Put(storetest.Backend("acme", "r"+strconv.Itoa(in.register), in.value)))
					out.committed, out.seq = err == nil, v.Seq
					out.unknown = errors.Is(err, store.ErrUnknown)
					if err != nil && !out.unknown && !errors.Is(err, store.ErrConflict) {
						t.Error(err)
						return
					}
				} else {
					out.seq = st.Version().Seq
					for r := range registers {
						out.values[r] = storetest.Address(st, "acme", "r"+strconv.Itoa(r))
					}
				}
				op := porcupine.Operation{ClientId: client, Input: in, Output: out, Call: int64(call), Return: int64(time.Since(start))}
				mu.Lock()
				history = append(history, op)
				mu.Unlock()
			}
		})
	}
	wait.Wait()
	model := porcupine.Model{
		Init: func() any { return registerState{} },
		Step: func(state, input, output any) (bool, any) {
			st, in, out := state.(registerState), input.(registerInput), output.(registerOutput)
			if !in.write {
				return out.seq == st.seq && out.values == st.values, st
			}
			if !out.committed { // a conflict: the record had left the base
				return out.unknown || st.seq > in.base, st
			}
			if st.seq != in.base || out.seq != in.base+1 {
				return false, st
			}
			st.seq++
			st.values[in.register] = in.value
			return true, st
		},
		DescribeOperation: func(input, output any) string { return fmt.Sprintf("%+v -> %+v", input, output) },
	}
	if result := porcupine.CheckOperationsTimeout(model, history, 3*time.Minute); result != porcupine.Ok {
		t.Errorf("the history of %d operations is not linearizable: %v", len(history), result)
	}
	if got := s.State().Version().Seq; got == 0 {
		t.Error("nothing was committed")
	}
}
