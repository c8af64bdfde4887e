package publish

import (
	"encoding/hex"
	"encoding/json"
	"errors"
	"fmt"
	"io/fs"
	"log/slog"
	"os"

	"hansa.dev/hansa/internal/snapshot"
	"hansa.dev/hansa/internal/x/durable"
)

// Ledger is a file that holds the last version and root that were published for each view. It is what keeps a control
// node that compiles differently after an update from giving out two contents of one version. It is for one goroutine.
type Ledger struct {
	path string
	log  *slog.Logger
	data ledgerData
}

type ledgerData struct {
	Views map[string]ledgerEntry `json:"views"`
}

type ledgerEntry struct {
	Cluster string `json:"cluster"`
	Epoch   uint64 `json:"epoch"`
	Seq     uint64 `json:"seq"`
	Root    string `json:"root"`
}

var (
	// errForked: the version was published with another content.
	errForked = errors.New("this version was published with another content")
	// errOlder: a newer version was published.
	errOlder = errors.New("the record is older than what was published: bring it back with hansa restore, which raises the epoch")
)

// maxLedger bounds the file: some 100,000 views.
const maxLedger = 32 << 20

// OpenLedger reads the ledger at path; one that does not exist yet is empty.
func OpenLedger(path string, log *slog.Logger) (*Ledger, error) {
	l := &Ledger{path: path, log: log.With("component", "publish"), data: ledgerData{Views: make(map[string]ledgerEntry)}}
	info, err := os.Stat(path)
	if errors.Is(err, fs.ErrNotExist) {
		return l, nil
	}
	if err == nil && info.Size() > maxLedger {
		err = fmt.Errorf("%d bytes are more than %d", info.Size(), maxLedger)
	}
	var b []byte
	if err == nil {
		b, err = os.ReadFile(path)
	}
	if err == nil {
		err = json.Unmarshal(b, &l.data)
	}
	if err != nil {
		return nil, fmt.Errorf("read %q, the ledger of what was published (remove it if gateways show no refusals): %w", path, err)
	}
	if l.data.Views == nil {
		l.data.Views = make(map[string]ledgerEntry)
	}
	return l, nil
}

// admit checks that nothing contradicts what was published, and writes down what is going to be. If the disk does not
// take it, it goes on all the same: gateways must get what is urgent, and what is lost is only a check after an update.
func (l *Ledger) admit(out []Current) error {
	if len(out) == 0 {
		return nil
	}
	for _, c := range out {
		cp := c.Checkpoint
		was, ok := l.data.Views[cp.View]
		if !ok || was.Cluster != cp.Cluster {
			continue
		}
		switch order := cp.Compare(snapshot.Checkpoint{Epoch: was.Epoch, Seq: was.Seq}); {
		case order < 0:
			return fmt.Errorf("publish version %d.%d of %q after %d.%d: %w", cp.Epoch, cp.Seq, cp.View, was.Epoch, was.Seq, errOlder)
		case order == 0 && was.Root != hex.EncodeToString(cp.Root[:]):
			return fmt.Errorf("publish version %d.%d of %q: %w", cp.Epoch, cp.Seq, cp.View, errForked)
		}
	}
	for _, c := range out {
		cp := c.Checkpoint
		l.data.Views[cp.View] = ledgerEntry{Cluster: cp.Cluster, Epoch: cp.Epoch, Seq: cp.Seq, Root: hex.EncodeToString(cp.Root[:])}
	}
	b, err := json.Marshal(l.data)
	if err == nil {
		err = durable.WriteFile(l.path, 0o600, durable.Bytes(b))
	}
	if err != nil {
		l.log.Warn("the ledger of what was published is not written", "err", err)
	}
	return nil
}
