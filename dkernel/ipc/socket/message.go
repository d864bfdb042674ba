package socket

import (
	"encoding/binary"

	"dinos/dkernel/uio"
	"dinos/dkernel/vfs"
	"dinos/dkernel/wait"
	"dinos/kernel/linux"
)

var le = binary.LittleEndian

// getAddr appends the address of n bytes to b. Errors: linux.EINVAL if that is no length, linux.EFAULT.
func getAddr(c *vfs.Caller, b []byte, addr uint64, n int) ([]byte, error) {
	if n < 0 || n > MaxAddr {
		return nil, linux.EINVAL
	}
	if n == 0 {
		return b, nil
	}
	b = b[:n]
	_, err := c.Mem.CopyIn(b, addr)
	return b, err
}

// putAddr stores as much of name at addr as *lenAddr says, and the whole length there.
func putAddr(c *vfs.Caller, name []byte, addr, lenAddr uint64) error {
	n, err := c.GetInt(lenAddr)
	if err != nil {
		return err
	}
	if n < 0 {
		return linux.EINVAL
	}
	if _, err := c.Mem.CopyOut(addr, name[:min(len(name), int(n))]); err != nil {
		return err
	}
	return c.PutInt(lenAddr, int32(len(name)))
}

// Sendto is sendto(2), and send(2) with to 0.
func Sendto(c *vfs.Caller, fd int, addr, n uint64, flag uint32, to uint64, toLen int) (int64, error) {
	r, s, err := of(c, fd)
	if err != nil {
		return 0, err
	}
	m := NewMessage(flag)
	m.IO.User(c.Mem, addr, min(n, linux.MAX_RW_COUNT))
	if to != 0 {
		m.Name, err = getAddr(c, m.Name, to, toLen)
	}
	var sent int64
	if err == nil {
		sent, err = s.Send(c, r.Description, m)
	}
	m.Free()
	r.Put()
	return sent, err
}

// Recvfrom is recvfrom(2), and recv(2) with from 0.
func Recvfrom(c *vfs.Caller, fd int, addr, n uint64, flag uint32, from, fromLen uint64) (int64, error) {
	r, s, err := of(c, fd)
	if err != nil {
		return 0, err
	}
	m := NewMessage(flag)
	m.IO.User(c.Mem, addr, min(n, linux.MAX_RW_COUNT))
	got, err := s.Recv(c, r.Description, m)
	if err == nil && from != 0 {
		err = putAddr(c, m.Name, from, fromLen)
	}
	m.Free()
	r.Put()
	return got, err
}

// The fields of struct user_msghdr.
const (
	hdrName       = 0
	hdrNameLen    = 8
	hdrIov        = 16
	hdrIovLen     = 24
	hdrControl    = 32
	hdrControlLen = 40
	hdrFlags      = 48
	hdrSize       = 56
	mmsgSize      = 64 // of struct mmsghdr: msg_len follows
	iovSize       = 16
	cmsgSize      = 16
)

// header reads a struct user_msghdr: it sets m.IO.
func (m *Message) header(c *vfs.Caller, addr uint64) (h [hdrSize]byte, err error) {
	if _, err = c.Mem.CopyIn(h[:], addr); err != nil {
		return h, err
	}
	n := le.Uint64(h[hdrIovLen:])
	if n > linux.UIO_MAXIOV {
		return h, linux.EMSGSIZE
	}
	if int32(le.Uint32(h[hdrNameLen:])) < 0 {
		return h, linux.EINVAL
	}
	if cap(m.raw) < int(n)*iovSize {
		m.raw, m.vecs = make([]byte, n*iovSize), make([]uio.Vec, n)
	}
	raw, vecs := m.raw[:n*iovSize], m.vecs[:n]
	if n > 0 {
		if _, err = c.Mem.CopyIn(raw, le.Uint64(h[hdrIov:])); err != nil {
			return h, err
		}
	}
	for i := range vecs {
		vecs[i] = uio.Vec{Base: le.Uint64(raw[i*iovSize:]), Len: le.Uint64(raw[i*iovSize+8:])}
	}
	if err = m.IO.UserVecs(c.Mem, vecs); err == nil {
		m.IO.Limit(linux.MAX_RW_COUNT)
	}
	return h, err
}

// Sendmsg is sendmsg(2) of the struct msghdr at addr.
func Sendmsg(c *vfs.Caller, fd int, addr uint64, flag uint32) (int64, error) {
	r, s, err := of(c, fd)
	if err != nil {
		return 0, err
	}
	defer r.Put()
	return sendmsg(c, r.Description, s, addr, flag)
}

func sendmsg(c *vfs.Caller, d *vfs.Description, s Socket, addr uint64, flag uint32) (int64, error) {
	m := NewMessage(flag)
	defer m.Free()
	h, err := m.header(c, addr)
	if err != nil {
		return 0, err
	}
	if a := le.Uint64(h[hdrName:]); a != 0 {
		n := min(int(le.Uint32(h[hdrNameLen:])), MaxAddr)
		if m.Name, err = getAddr(c, m.Name, a, n); err != nil {
			return 0, err
		}
	}
	if n := le.Uint64(h[hdrControlLen:]); n > 0 {
		if n > maxControl {
			return 0, linux.ENOBUFS
		}
		m.Control = append(m.Control[:0], make([]byte, n)...)
		if _, err := c.Mem.CopyIn(m.Control, le.Uint64(h[hdrControl:])); err != nil {
			return 0, err
		}
	}
	return s.Send(c, d, m)
}

// Recvmsg is recvmsg(2) to the struct msghdr at addr.
func Recvmsg(c *vfs.Caller, fd int, addr uint64, flag uint32) (int64, error) {
	r, s, err := of(c, fd)
	if err != nil {
		return 0, err
	}
	defer r.Put()
	return recvmsg(c, r.Description, s, addr, flag)
}

func recvmsg(c *vfs.Caller, d *vfs.Description, s Socket, addr uint64, flag uint32) (int64, error) {
	m := NewMessage(flag)
	defer m.Free()
	h, err := m.header(c, addr)
	if err != nil {
		return 0, err
	}
	control := le.Uint64(h[hdrControl:])
	if control != 0 {
		m.room = int(min(le.Uint64(h[hdrControlLen:]), maxControl))
	}
	n, err := s.Recv(c, d, m)
	if err != nil {
		return 0, err
	}
	if err := m.reply(c, addr, h, control, flag); err != nil {
		for _, fd := range m.fds {
			_ = c.Files.Close(c, fd)
		}
		return 0, err
	}
	return n, nil
}

// reply stores what a struct msghdr says of a message that was received.
func (m *Message) reply(c *vfs.Caller, addr uint64, h [hdrSize]byte, control uint64, flag uint32) error {
	if a := le.Uint64(h[hdrName:]); a != 0 {
		if _, err := c.Mem.CopyOut(a, m.Name[:min(len(m.Name), int(le.Uint32(h[hdrNameLen:])))]); err != nil {
			return err
		}
		if err := c.PutInt(addr+hdrNameLen, int32(len(m.Name))); err != nil {
			return err
		}
	}
	if len(m.Control) > 0 {
		if _, err := c.Mem.CopyOut(control, m.Control); err != nil {
			return err
		}
	}
	var b [8]byte
	le.PutUint64(b[:], uint64(len(m.Control)))
	if _, err := c.Mem.CopyOut(addr+hdrControlLen, b[:]); err != nil {
		return err
	}
	return c.PutInt(addr+hdrFlags, int32(m.Out|flag&linux.MSG_CMSG_CLOEXEC))
}

// Sendmmsg is sendmmsg(2) of n struct mmsghdr at addr. It returns how many were sent; an error counts only for the first.
func Sendmmsg(c *vfs.Caller, fd int, addr uint64, n int, flag uint32) (int, error) {
	r, s, err := of(c, fd)
	if err != nil {
		return 0, err
	}
	defer r.Put()
	n = min(n, linux.UIO_MAXIOV)
	for i := range n {
		at := addr + uint64(i)*mmsgSize
		sent, err := sendmsg(c, r.Description, s, at, flag)
		if err == nil {
			err = c.PutInt(at+hdrSize, int32(sent))
		}
		if err != nil {
			if i > 0 {
				err = nil
			}
			return i, err
		}
	}
	return n, nil
}

// Recvmmsg is recvmmsg(2) of n struct mmsghdr at addr. It returns how many were received; an error counts only for the first. The
// deadline (of the Sleeper) is looked at after each message, as on Linux. With linux.MSG_WAITFORONE it waits for the first only.
func Recvmmsg(c *vfs.Caller, fd int, addr uint64, n int, flag uint32, deadline int64, now func() int64) (int, error) {
	r, s, err := of(c, fd)
	if err != nil {
		return 0, err
	}
	defer r.Put()
	n = min(n, linux.UIO_MAXIOV)
	for i := range n {
		at := addr + uint64(i)*mmsgSize
		got, err := recvmsg(c, r.Description, s, at, flag&^linux.MSG_WAITFORONE)
		if err == nil {
			err = c.PutInt(at+hdrSize, int32(got))
		}
		if err != nil {
			if i > 0 {
				err = nil
			}
			return i, err
		}
		if flag&linux.MSG_WAITFORONE != 0 {
			flag |= linux.MSG_DONTWAIT
		}
		if deadline != wait.Forever && now() >= deadline {
			return i + 1, nil
		}
	}
	return n, nil
}

// Cmsg is a control message.
type Cmsg struct {
	Level, Type int32
	Data        []byte
}

// NextCmsg takes the first control message off b: ok is false at the end. The error is linux.EINVAL if it is malformed.
func NextCmsg(b []byte) (m Cmsg, rest []byte, ok bool, err error) {
	if len(b) < cmsgSize {
		return m, nil, false, nil
	}
	n := le.Uint64(b)
	if n < cmsgSize || n > uint64(len(b)) {
		return m, nil, false, linux.EINVAL
	}
	m = Cmsg{int32(le.Uint32(b[8:])), int32(le.Uint32(b[12:])), b[cmsgSize:n]}
	return m, b[min((n+7)&^7, uint64(len(b))):], true, nil
}

// Put adds a control message to what is received. If there is not enough room it is cut, and Out says so.
func (m *Message) Put(level, typ int32, data []byte) {
	left := m.room - len(m.Control)
	if left < cmsgSize {
		m.Out |= linux.MSG_CTRUNC
		return
	}
	n := cmsgSize + len(data)
	if n > left {
		m.Out |= linux.MSG_CTRUNC
		n = left
	}
	at := len(m.Control)
	m.Control = le.AppendUint64(m.Control, uint64(n))
	m.Control = le.AppendUint32(m.Control, uint32(level))
	m.Control = le.AppendUint32(m.Control, uint32(typ))
	m.Control = append(m.Control, data[:n-cmsgSize]...)
	for len(m.Control) < min(at+(n+7)&^7, m.room) {
		m.Control = append(m.Control, 0)
	}
}

// PutFiles adds descriptors of files, as many as there is room for, and takes their references.
func (m *Message) PutFiles(c *vfs.Caller, files []*vfs.Description) {
	fit := max(0, (m.room-len(m.Control)-cmsgSize)/4)
	if m.room-len(m.Control) < cmsgSize {
		fit = 0
	}
	var data []byte
	for i, f := range files {
		if i < fit {
			fd, err := c.Files.Install(f, 0, c.OpenLimit, m.Flags&linux.MSG_CMSG_CLOEXEC != 0)
			if err == nil {
				m.fds = append(m.fds, fd)
				data = le.AppendUint32(data, uint32(fd))
				continue
			}
			fit = i
		}
		m.Out |= linux.MSG_CTRUNC
		f.Unref()
	}
	if len(data) > 0 {
		m.Put(linux.SOL_SOCKET, linux.SCM_RIGHTS, data)
	}
}
