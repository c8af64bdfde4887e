package identity

import (
	"crypto/hmac"
	"crypto/rand"
	"crypto/sha256"
	"encoding/hex"
	"encoding/json"
	"errors"
	"fmt"
	"io/fs"
	"os"
	"path/filepath"
	"strings"

	"hansa.dev/hansa/internal/x/durable"
)

// Folder is the data folder of a node: locked against a second process and bound to the place where it lies.
//
// The binding exists because a copied folder would give two nodes one identity: both would use up the same rights,
// and what one acknowledges would be believed of the other. A file that is made once, the anchor, is remembered with
// its inode and, where the file system tells, the time of its birth, together with a hash of the machine's ID.
//
//   - Restart, reboot, renaming the folder within its file system, moving the volume to another container: the anchor
//     is the same file and the machine's ID the same or unknown. The folder opens.
//   - cp -r, rsync, tar, a restored backup, mv to another file system: the anchor is another file. ErrClone.
//   - A cloned disk or volume on another machine: the anchor looks the same, the machine's ID differs. ErrClone.
//   - A cloned machine whose image carries its ID: not noticed here. Images must be made without /etc/machine-id, as
//     the makers of distributions ask anyway.
type Folder struct {
	dir  string
	lock *durable.Lock
}

const (
	anchorFile  = "anchor"
	bindingFile = "binding.json"
)

// FolderOptions are for OpenFolder.
type FolderOptions struct {
	// Dir is the folder; it is made if it does not exist.
	Dir string
	// Adopt binds a folder that was copied or moved to its new place instead of refusing it. The operator states
	// thereby that the original is gone for good.
	Adopt bool
	// HostID returns what identifies the machine; "" if nothing does. nil: MachineID.
	HostID func() (string, error)
	// Lock, if not nil, is the lock of the folder, which the caller holds already. It is the folder's from now on, also if
	// there is an error.
	Lock *durable.Lock
}

// binding is what a folder remembers of its place.
type binding struct {
	Host  string `json:"host,omitempty"`  // keyed hash of the machine's ID
	Inode uint64 `json:"inode"`           // of the anchor
	Birth int64  `json:"birth,omitempty"` // of the anchor, Unix nanoseconds; 0: not known
}

// OpenFolder locks a data folder and checks its binding; a fresh folder is bound. The error is durable.ErrLocked if
// another process has the folder and ErrClone if it was copied. Whoever opened it must close it.
func OpenFolder(o FolderOptions) (_ *Folder, err error) {
	if o.HostID == nil {
		o.HostID = MachineID
	}
	lock := o.Lock
	if lock == nil {
		if err := durable.Mkdir(o.Dir); err != nil {
			return nil, fmt.Errorf("open data folder: %w", err)
		}
		if lock, err = durable.LockDir(o.Dir); err != nil {
			return nil, fmt.Errorf("open data folder: %w", err)
		}
	}
	defer func() {
		if err != nil {
			err = errors.Join(err, lock.Unlock())
		}
	}()
	if err := durable.RemoveTemp(o.Dir); err != nil {
		return nil, fmt.Errorf("open data folder: %w", err)
	}
	if err := bind(o); err != nil {
		return nil, fmt.Errorf("open data folder %q: %w", o.Dir, err)
	}
	return &Folder{dir: o.Dir, lock: lock}, nil
}

// Path returns the path of something in the folder.
func (f *Folder) Path(elem ...string) string {
	return filepath.Join(append([]string{f.dir}, elem...)...)
}

// Lock is the lock of the folder. It belongs to the folder.
func (f *Folder) Lock() *durable.Lock { return f.lock }

// Close unlocks the folder.
func (f *Folder) Close() error { return f.lock.Unlock() }

func bind(o FolderOptions) error {
	path := filepath.Join(o.Dir, bindingFile)
	text, err := os.ReadFile(path)
	switch {
	case errors.Is(err, fs.ErrNotExist):
		return writeBinding(o)
	case err != nil:
		return err
	case o.Adopt:
		return writeBinding(o)
	}
	var was binding
	if err := json.Unmarshal(text, &was); err != nil {
		return fmt.Errorf("%s: %w", bindingFile, err)
	}
	is, err := observe(o)
	if errors.Is(err, fs.ErrNotExist) {
		return cloneError(o.Dir, "the file \"anchor\" is missing")
	}
	if err != nil {
		return err
	}
	switch {
	case was.Inode != is.Inode:
		return cloneError(o.Dir, fmt.Sprintf("the file \"anchor\" was inode %d and is inode %d", was.Inode, is.Inode))
	case was.Birth != 0 && is.Birth != 0 && was.Birth != is.Birth:
		return cloneError(o.Dir, "the file \"anchor\" was made again")
	case was.Host != "" && is.Host != "" && was.Host != is.Host:
		return cloneError(o.Dir, "it belongs to another machine")
	}
	return nil
}

func cloneError(dir, why string) error {
	return fmt.Errorf("%w (%s): two nodes with one identity must never run. "+
		"For a new gateway start with an empty data folder and a join token or a bundle of its own. "+
		"If this is the only copy, because %q was moved or restored, start once with --adopt-data", ErrClone, why, dir)
}

func writeBinding(o FolderOptions) error {
	name := make([]byte, 16)
	_, _ = rand.Read(name) // never fails: it ends the program if the system has no randomness
	err := durable.CreateFile(filepath.Join(o.Dir, anchorFile), 0o600, durable.Bytes([]byte(hex.EncodeToString(name)+"\n")))
	if err != nil && !errors.Is(err, fs.ErrExist) {
		return err
	}
	b, err := observe(o)
	if err != nil {
		return err
	}
	text, err := json.Marshal(b)
	if err != nil {
		return fmt.Errorf("encode binding: %w", err)
	}
	return durable.WriteFile(filepath.Join(o.Dir, bindingFile), 0o600, durable.Bytes(text))
}

// observe returns the binding as it would be now.
func observe(o FolderOptions) (binding, error) {
	path := filepath.Join(o.Dir, anchorFile)
	number, err := inode(path)
	if err != nil {
		return binding{}, err
	}
	host, err := o.HostID()
	if err != nil {
		return binding{}, fmt.Errorf("identify machine: %w", err)
	}
	b := binding{Inode: number, Birth: birth(path)}
	if host != "" {
		// The machine's ID should not be handed on as it is (machine-id(5)), hence a keyed hash.
		mac := hmac.New(sha256.New, []byte("hansa data folder"))
		mac.Write([]byte(host))
		b.Host = hex.EncodeToString(mac.Sum(nil))
	}
	return b, nil
}

// MachineID returns the ID that the operating system gave the machine when it was installed; "" if it has none, as in
// most containers.
func MachineID() (string, error) {
	for _, path := range []string{"/etc/machine-id", "/var/lib/dbus/machine-id"} {
		b, err := os.ReadFile(path)
		if errors.Is(err, fs.ErrNotExist) {
			continue
		}
		if err != nil {
			return "", fmt.Errorf("read machine ID: %w", err)
		}
		if id := strings.TrimSpace(string(b)); id != "" && id != "uninitialized" {
			return id, nil
		}
	}
	return "", nil
}
