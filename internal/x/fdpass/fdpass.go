//go:build unix

// Package fdpass lets two processes talk and hand each other open files: messages of JSON over a Unix socket, with files
// beside them. The end of a process is seen by the other one as io.EOF, however it ended. Package app hands a gateway over
// with it.
package fdpass

import (
	"encoding/binary"
	"encoding/json"
	"errors"
	"fmt"
	"io"
	"net"
	"os"
	"syscall"
	"time"
)

const (
	// MaxFiles is how many files go with one message (SCM_MAX_FD of Linux).
	MaxFiles = 253
	// maxMessage bounds a message.
	maxMessage = 1 << 20
)

// Conn is one end. It is for one goroutine at a time in each direction.
type Conn struct{ c *net.UnixConn }

// Pair returns two ends: one to keep, and one as a file to give to a process that is being started.
func Pair() (*Conn, *os.File, error) {
	syscall.ForkLock.RLock() // until neither of them goes to a process that is started meanwhile
	fds, err := syscall.Socketpair(syscall.AF_UNIX, syscall.SOCK_STREAM, 0)
	if err == nil {
		syscall.CloseOnExec(fds[0])
		syscall.CloseOnExec(fds[1])
	}
	syscall.ForkLock.RUnlock()
	if err != nil {
		return nil, nil, fmt.Errorf("make a pair of sockets: %w", err)
	}
	theirs := os.NewFile(uintptr(fds[1]), "handover")
	ours, err := FromFile(os.NewFile(uintptr(fds[0]), "handover"))
	if err != nil {
		return nil, nil, errors.Join(err, theirs.Close())
	}
	return ours, theirs, nil
}

// FromFile makes an end of a file, which it closes.
func FromFile(f *os.File) (*Conn, error) {
	c, err := net.FileConn(f)
	if err = errors.Join(err, f.Close()); err != nil {
		return nil, fmt.Errorf("use a socket: %w", err)
	}
	u, ok := c.(*net.UnixConn)
	if !ok {
		return nil, errors.Join(errors.New("use a socket: it is not a Unix socket"), c.Close())
	}
	return &Conn{u}, nil
}

// Send sends a message with files, which stay the caller's, within the given time.
func (c *Conn) Send(message any, files []*os.File, within time.Duration) error {
	body, err := json.Marshal(message)
	if err != nil {
		return fmt.Errorf("encode message: %w", err)
	}
	if len(body) > maxMessage || len(files) > MaxFiles {
		return fmt.Errorf("send message: %d bytes and %d files, at most %d and %d", len(body), len(files), maxMessage, MaxFiles)
	}
	if err := c.c.SetWriteDeadline(time.Now().Add(within)); err != nil {
		return fmt.Errorf("send message: %w", err)
	}
	head := binary.BigEndian.AppendUint32(nil, uint32(len(body)))
	err = numbers(files, nil, func(fds []int) error {
		var rights []byte
		if len(fds) > 0 {
			rights = syscall.UnixRights(fds...)
		}
		_, _, err := c.c.WriteMsgUnix(head, rights, nil)
		return err
	})
	if err == nil {
		_, err = c.c.Write(body)
	}
	if err != nil {
		return fmt.Errorf("send message: %w", err)
	}
	return nil
}

// numbers calls use with the descriptors of files, which stay open meanwhile. File.Fd would make sockets block.
func numbers(files []*os.File, fds []int, use func([]int) error) error {
	if len(fds) == len(files) {
		return use(fds)
	}
	raw, err := files[len(fds)].SyscallConn()
	if err != nil {
		return err
	}
	controlErr := raw.Control(func(fd uintptr) { err = numbers(files, append(fds, int(fd)), use) })
	return errors.Join(controlErr, err)
}

// Receive waits for a message and returns the files that came with it, which are the caller's. The error is io.EOF if the
// other process has ended.
func (c *Conn) Receive(message any, within time.Duration) (files []*os.File, err error) {
	defer func() {
		if err != nil {
			for _, f := range files {
				_ = f.Close()
			}
			files = nil
			if !errors.Is(err, io.EOF) {
				err = fmt.Errorf("receive message: %w", err)
			}
		}
	}()
	if err := c.c.SetReadDeadline(time.Now().Add(within)); err != nil {
		return nil, err
	}
	head, rights := make([]byte, 4), make([]byte, syscall.CmsgSpace(4*MaxFiles))
	n, rightsLen, _, _, err := c.c.ReadMsgUnix(head, rights)
	if errors.Is(err, syscall.ECONNRESET) || err == nil && n == 0 {
		err = io.EOF // it ended with something unread
	}
	if err != nil {
		return nil, err
	}
	if files, err = opened(rights[:rightsLen]); err != nil {
		return files, err
	}
	if _, err := io.ReadFull(c.c, head[n:]); err != nil {
		return files, ended(err)
	}
	size := binary.BigEndian.Uint32(head)
	if size > maxMessage {
		return files, fmt.Errorf("%d bytes, at most %d", size, maxMessage)
	}
	body := make([]byte, size)
	if _, err := io.ReadFull(c.c, body); err != nil {
		return files, ended(err)
	}
	return files, json.Unmarshal(body, message)
}

func ended(err error) error {
	if errors.Is(err, io.ErrUnexpectedEOF) {
		return io.EOF
	}
	return err
}

// opened returns the files of a control message.
func opened(rights []byte) (files []*os.File, err error) {
	messages, err := syscall.ParseSocketControlMessage(rights)
	if err != nil {
		return nil, err
	}
	for i := range messages {
		fds, rightsErr := syscall.ParseUnixRights(&messages[i])
		err = errors.Join(err, rightsErr)
		for _, fd := range fds {
			syscall.CloseOnExec(fd) // where the system has not seen to it
			files = append(files, os.NewFile(uintptr(fd), "passed"))
		}
	}
	return files, err
}

// Close ends the conversation.
func (c *Conn) Close() error { return c.c.Close() }
