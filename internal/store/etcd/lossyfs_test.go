package etcd_test

import (
	"context"
	"fmt"
	"maps"
	"math/rand/v2"
	"os"
	"path/filepath"
	"sync"
	"syscall"
	"testing"

	"github.com/hanwen/go-fuse/v2/fs"
	"github.com/hanwen/go-fuse/v2/fuse"
)

const blockSize = 4096

// lossyDisk is a file system in memory that knows what would be left of it if the power failed now: of every file
// what it was when it was last synced, and of names what they were when anything was last synced, as journalling
// file systems do it.
type lossyDisk struct {
	mu      sync.Mutex // guards all of the disk
	off     bool       // the power is off: nothing works
	root    *lossyDir
	durable *lossyDir
	inodes  uint64
	syncs   int
	cutAt   int           // the power goes off after so many syncs; 0: it stays on
	isOff   chan struct{} // closed when that happens
}

// lossyDir is a directory; its entries are *lossyDir and *lossyFile.
type lossyDir struct {
	inode   uint64
	entries map[string]any
}

// lossyFile is the content of a file. Blocks are never changed, only replaced.
type lossyFile struct {
	inode      uint64
	size       int64
	blocks     map[int64]*[blockSize]byte
	syncedSize int64
	synced     map[int64]*[blockSize]byte
	dirty      map[int64]struct{}
}

func newLossyDisk() *lossyDisk {
	d := &lossyDisk{isOff: make(chan struct{})}
	d.root = d.newDir()
	d.durable = d.root.clone()
	return d
}

func (d *lossyDisk) newDir() *lossyDir {
	d.inodes++
	return &lossyDir{inode: d.inodes, entries: make(map[string]any)}
}

func (d *lossyDisk) newFile() *lossyFile {
	d.inodes++
	return &lossyFile{
		inode: d.inodes, blocks: make(map[int64]*[blockSize]byte), synced: make(map[int64]*[blockSize]byte),
		dirty: make(map[int64]struct{}),
	}
}

// clone copies the names below a directory; the files are the same.
func (dir *lossyDir) clone() *lossyDir {
	c := &lossyDir{inode: dir.inode, entries: maps.Clone(dir.entries)}
	for name, e := range c.entries {
		if sub, ok := e.(*lossyDir); ok {
			c.entries[name] = sub.clone()
		}
	}
	return c
}

func (f *lossyFile) writeAt(p []byte, off int64) {
	for len(p) > 0 {
		i, at := off/blockSize, int(off%blockSize)
		b := new([blockSize]byte)
		if old := f.blocks[i]; old != nil {
			*b = *old
		}
		n := copy(b[at:], p)
		f.blocks[i] = b
		f.dirty[i] = struct{}{}
		p, off = p[n:], off+int64(n)
		f.size = max(f.size, off)
	}
}

func (f *lossyFile) readAt(p []byte, off int64) int {
	n := int(max(0, min(int64(len(p)), f.size-off)))
	p = p[:n]
	for len(p) > 0 {
		i, at := off/blockSize, int(off%blockSize)
		m := min(len(p), blockSize-at)
		if b := f.blocks[i]; b != nil {
			copy(p[:m], b[at:])
		} else {
			clear(p[:m])
		}
		p, off = p[m:], off+int64(m)
	}
	return n
}

func (f *lossyFile) truncate(size int64) {
	for i := range f.blocks {
		if i*blockSize >= size {
			delete(f.blocks, i)
			f.dirty[i] = struct{}{}
		}
	}
	if b := f.blocks[size/blockSize]; b != nil && size < f.size {
		cut := *b
		clear(cut[size%blockSize:])
		f.blocks[size/blockSize] = &cut
		f.dirty[size/blockSize] = struct{}{}
	}
	f.size = size
}

// sync makes a file, if there is one, and all names durable.
func (d *lossyDisk) sync(f *lossyFile) {
	d.syncs++
	if d.syncs == d.cutAt {
		defer close(d.isOff)
		d.off = true
	}
	d.durable = d.root.clone()
	if f == nil {
		return
	}
	f.syncedSize = f.size
	for i := range f.dirty {
		if b := f.blocks[i]; b != nil {
			f.synced[i] = b
		} else {
			delete(f.synced, i)
		}
	}
	clear(f.dirty)
}

// cut turns the power off.
func (d *lossyDisk) cut() {
	d.mu.Lock()
	defer d.mu.Unlock()
	d.off = true
}

// restart turns the power on again. Of what was written and not synced every block is kept with that probability.
func (d *lossyDisk) restart(rng *rand.Rand, keep float64) {
	d.mu.Lock()
	defer d.mu.Unlock()
	d.off = false
	d.root = d.durable.clone()
	d.root.each("", func(_ string, e any) {
		f, ok := e.(*lossyFile)
		if !ok {
			return
		}
		for i := range f.dirty {
			if rng.Float64() < keep && f.blocks[i] != nil {
				f.synced[i] = f.blocks[i]
				f.syncedSize = max(f.syncedSize, min(f.size, (i+1)*blockSize))
			}
		}
		clear(f.dirty)
		f.blocks, f.size = maps.Clone(f.synced), f.syncedSize
	})
}

// each calls visit for everything below a directory, directories first.
func (dir *lossyDir) each(path string, visit func(string, any)) {
	for name, e := range dir.entries {
		visit(filepath.Join(path, name), e)
		if sub, ok := e.(*lossyDir); ok {
			sub.each(filepath.Join(path, name), visit)
		}
	}
}

// export copies everything to a directory of an ordinary file system.
func (d *lossyDisk) export(to string) (err error) {
	d.mu.Lock()
	defer d.mu.Unlock()
	d.root.each(to, func(path string, e any) {
		if err != nil {
			return
		}
		if f, ok := e.(*lossyFile); ok {
			err = f.export(path)
			return
		}
		err = os.Mkdir(path, 0o700)
	})
	return err
}

func (f *lossyFile) export(path string) (err error) {
	out, err := os.OpenFile(path, os.O_CREATE|os.O_WRONLY, 0o600)
	if err != nil {
		return err
	}
	defer func() {
		if cerr := out.Close(); err == nil {
			err = cerr
		}
	}()
	for i, b := range f.blocks {
		if n := min(blockSize, f.size-i*blockSize); n > 0 {
			if _, err := out.WriteAt(b[:n], i*blockSize); err != nil {
				return err
			}
		}
	}
	return out.Truncate(f.size)
}

// mount makes the disk appear in a directory until unmount is called.
func (d *lossyDisk) mount(t *testing.T, dir string) (unmount func()) {
	t.Helper()
	d.mu.Lock()
	root := &lossyNode{disk: d, dir: d.root}
	d.mu.Unlock()
	server, err := fs.Mount(dir, root, &fs.Options{
		MountOptions:   fuse.MountOptions{DirectMount: true, FsName: "lossy", Name: "lossy", MaxWrite: 1 << 20},
		RootStableAttr: &fs.StableAttr{Ino: d.root.inode, Mode: fuse.S_IFDIR},
	})
	if err != nil {
		t.Fatalf("mount a file system of our own: %v", err)
	}
	return func() {
		if err := server.Unmount(); err != nil {
			t.Errorf("unmount: %v", err)
		}
		server.Wait()
	}
}

// lossyNode is a file or a directory as FUSE sees it.
type lossyNode struct {
	fs.Inode
	disk *lossyDisk
	dir  *lossyDir
	file *lossyFile
}

var (
	_ fs.NodeLookuper  = (*lossyNode)(nil)
	_ fs.NodeGetattrer = (*lossyNode)(nil)
	_ fs.NodeSetattrer = (*lossyNode)(nil)
	_ fs.NodeCreater   = (*lossyNode)(nil)
	_ fs.NodeMkdirer   = (*lossyNode)(nil)
	_ fs.NodeUnlinker  = (*lossyNode)(nil)
	_ fs.NodeRmdirer   = (*lossyNode)(nil)
	_ fs.NodeRenamer   = (*lossyNode)(nil)
	_ fs.NodeReaddirer = (*lossyNode)(nil)
	_ fs.NodeOpener    = (*lossyNode)(nil)
	_ fs.NodeReader    = (*lossyNode)(nil)
	_ fs.NodeWriter    = (*lossyNode)(nil)
	_ fs.NodeFsyncer   = (*lossyNode)(nil)
	_ fs.NodeAllocater = (*lossyNode)(nil)
	_ fs.NodeStatfser  = (*lossyNode)(nil)
)

// use locks the disk; it returns false if the power is off.
func (n *lossyNode) use() (unlock func(), ok bool) {
	n.disk.mu.Lock()
	return n.disk.mu.Unlock, !n.disk.off
}

func (n *lossyNode) attr(e any, out *fuse.Attr) {
	switch e := e.(type) {
	case *lossyDir:
		out.Ino, out.Mode, out.Nlink = e.inode, fuse.S_IFDIR|0o700, 2
	case *lossyFile:
		out.Ino, out.Mode, out.Nlink, out.Size = e.inode, fuse.S_IFREG|0o600, 1, uint64(e.size)
	}
}

func (n *lossyNode) self() any {
	if n.dir != nil {
		return n.dir
	}
	return n.file
}

// child returns the node of an entry.
func (n *lossyNode) child(ctx context.Context, e any, out *fuse.EntryOut) *fs.Inode {
	n.attr(e, &out.Attr)
	c := &lossyNode{disk: n.disk}
	mode := uint32(fuse.S_IFREG)
	switch e := e.(type) {
	case *lossyDir:
		c.dir, mode = e, fuse.S_IFDIR
	case *lossyFile:
		c.file = e
	}
	return n.NewInode(ctx, c, fs.StableAttr{Ino: out.Ino, Mode: mode})
}

func (n *lossyNode) Lookup(ctx context.Context, name string, out *fuse.EntryOut) (*fs.Inode, syscall.Errno) {
	unlock, ok := n.use()
	defer unlock()
	if !ok {
		return nil, syscall.EIO
	}
	e, ok := n.dir.entries[name]
	if !ok {
		return nil, syscall.ENOENT
	}
	return n.child(ctx, e, out), 0
}

func (n *lossyNode) Getattr(_ context.Context, _ fs.FileHandle, out *fuse.AttrOut) syscall.Errno {
	unlock, _ := n.use()
	defer unlock()
	n.attr(n.self(), &out.Attr)
	return 0
}

func (n *lossyNode) Setattr(_ context.Context, _ fs.FileHandle, in *fuse.SetAttrIn, out *fuse.AttrOut) syscall.Errno {
	unlock, ok := n.use()
	defer unlock()
	if !ok {
		return syscall.EIO
	}
	if size, ok := in.GetSize(); ok && n.file != nil {
		n.file.truncate(int64(size))
	}
	n.attr(n.self(), &out.Attr)
	return 0
}

func (n *lossyNode) Create(ctx context.Context, name string, _, _ uint32, out *fuse.EntryOut) (*fs.Inode, fs.FileHandle, uint32, syscall.Errno) {
	unlock, ok := n.use()
	defer unlock()
	if !ok {
		return nil, nil, 0, syscall.EIO
	}
	f := n.disk.newFile()
	n.dir.entries[name] = f
	return n.child(ctx, f, out), nil, 0, 0
}

func (n *lossyNode) Mkdir(ctx context.Context, name string, _ uint32, out *fuse.EntryOut) (*fs.Inode, syscall.Errno) {
	unlock, ok := n.use()
	defer unlock()
	if !ok {
		return nil, syscall.EIO
	}
	dir := n.disk.newDir()
	n.dir.entries[name] = dir
	return n.child(ctx, dir, out), 0
}

func (n *lossyNode) Unlink(_ context.Context, name string) syscall.Errno {
	unlock, ok := n.use()
	defer unlock()
	if !ok {
		return syscall.EIO
	}
	delete(n.dir.entries, name)
	return 0
}

func (n *lossyNode) Rmdir(_ context.Context, name string) syscall.Errno {
	unlock, ok := n.use()
	defer unlock()
	if !ok {
		return syscall.EIO
	}
	if dir, ok := n.dir.entries[name].(*lossyDir); ok && len(dir.entries) > 0 {
		return syscall.ENOTEMPTY
	}
	delete(n.dir.entries, name)
	return 0
}

func (n *lossyNode) Rename(_ context.Context, name string, newParent fs.InodeEmbedder, newName string, _ uint32) syscall.Errno {
	unlock, ok := n.use()
	defer unlock()
	if !ok {
		return syscall.EIO
	}
	newParent.(*lossyNode).dir.entries[newName] = n.dir.entries[name]
	delete(n.dir.entries, name)
	return 0
}

func (n *lossyNode) Readdir(context.Context) (fs.DirStream, syscall.Errno) {
	unlock, ok := n.use()
	defer unlock()
	if !ok {
		return nil, syscall.EIO
	}
	var list []fuse.DirEntry
	for name, e := range n.dir.entries {
		var a fuse.Attr
		n.attr(e, &a)
		list = append(list, fuse.DirEntry{Name: name, Ino: a.Ino, Mode: a.Mode})
	}
	return fs.NewListDirStream(list), 0
}

func (n *lossyNode) Open(context.Context, uint32) (fs.FileHandle, uint32, syscall.Errno) {
	unlock, ok := n.use()
	defer unlock()
	if !ok {
		return nil, 0, syscall.EIO
	}
	return nil, 0, 0
}

func (n *lossyNode) Read(_ context.Context, _ fs.FileHandle, dest []byte, off int64) (fuse.ReadResult, syscall.Errno) {
	unlock, ok := n.use()
	defer unlock()
	if !ok {
		return nil, syscall.EIO
	}
	return fuse.ReadResultData(dest[:n.file.readAt(dest, off)]), 0
}

func (n *lossyNode) Write(_ context.Context, _ fs.FileHandle, data []byte, off int64) (uint32, syscall.Errno) {
	unlock, ok := n.use()
	defer unlock()
	if !ok {
		return 0, syscall.EIO
	}
	n.file.writeAt(data, off)
	return uint32(len(data)), 0
}

func (n *lossyNode) Fsync(context.Context, fs.FileHandle, uint32) syscall.Errno {
	unlock, ok := n.use()
	defer unlock()
	if !ok {
		return syscall.EIO
	}
	n.disk.sync(n.file)
	return 0
}

func (n *lossyNode) Allocate(_ context.Context, _ fs.FileHandle, off, size uint64, mode uint32) syscall.Errno {
	unlock, ok := n.use()
	defer unlock()
	if !ok {
		return syscall.EIO
	}
	const keepSize = 1
	if mode&keepSize == 0 {
		n.file.size = max(n.file.size, int64(off+size))
	}
	return 0
}

func (n *lossyNode) Statfs(_ context.Context, out *fuse.StatfsOut) syscall.Errno {
	out.Bsize, out.Blocks, out.Bfree, out.Bavail = blockSize, 1<<24, 1<<24, 1<<24
	return 0
}

// TestLossyDisk checks that the disk loses what was not synced and keeps what was: otherwise the tests upon it prove
// nothing. It also goes through the kernel.
func TestLossyDisk(t *testing.T) {
	requireReal(t)
	d := newLossyDisk()
	dir := t.TempDir()
	unmount := d.mount(t, dir)
	write := func(name string, sync bool, data string, off int64) {
		t.Helper()
		f, err := os.OpenFile(filepath.Join(dir, name), os.O_CREATE|os.O_RDWR, 0o600)
		if err != nil {
			t.Fatal(err)
		}
		defer f.Close()
		if _, err := f.WriteAt([]byte(data), off); err != nil {
			t.Fatal(err)
		}
		if sync {
			if err := f.Sync(); err != nil {
				t.Fatal(err)
			}
		}
	}
	write("synced", true, "one", 0)
	write("synced", false, "two", 3)
	write("named", false, "x", 0)
	write("other", true, "y", 0) // makes the name of "named" durable
	write("lost", false, "z", 0)
	if err := os.Rename(filepath.Join(dir, "other"), filepath.Join(dir, "renamed")); err != nil {
		t.Fatal(err)
	}
	if b, err := os.ReadFile(filepath.Join(dir, "synced")); string(b) != "onetwo" || err != nil {
		t.Errorf("before the cut synced is %q, %v", b, err)
	}
	d.cut()
	if _, err := os.Create(filepath.Join(dir, "after")); err == nil {
		t.Error("a file can be made without power")
	}
	unmount()
	d.restart(rand.New(rand.NewPCG(1, 1)), 0)
	out := t.TempDir()
	if err := d.export(out); err != nil {
		t.Fatal(err)
	}
	got := make(map[string]string)
	entries, err := os.ReadDir(out)
	if err != nil {
		t.Fatal(err)
	}
	for _, e := range entries {
		b, err := os.ReadFile(filepath.Join(out, e.Name()))
		if err != nil {
			t.Fatal(err)
		}
		got[e.Name()] = string(b)
	}
	if want := map[string]string{"synced": "one", "named": "", "other": "y"}; fmt.Sprint(got) != fmt.Sprint(want) {
		t.Errorf("after the cut there is %v, want %v", got, want)
	}
}
