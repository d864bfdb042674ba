package unix

import (
	"encoding/binary"

	"dinos/dkernel/cred"
	"dinos/dkernel/ipc/socket"
	"dinos/dkernel/vfs"
	"dinos/kernel/linux"
)

// ancillary is what is sent along with data.
type ancillary struct {
	files []*vfs.Description // with a reference each
	cred  linux.Ucred
	given bool // cred was said by the sender
}

// parseControl reads control messages. After an error there is nothing to release. Errors: linux.EINVAL, linux.EBADF, linux.EPERM for
// credentials that the sender may not have, linux.ETOOMANYREFS.
func (s *sock) parseControl(c *vfs.Caller, b []byte) (a ancillary, err error) {
	defer func() {
		if err != nil {
			a.release()
		}
	}()
	for len(b) > 0 {
		m, rest, ok, err := socket.NextCmsg(b)
		if err != nil {
			return a, err
		}
		if !ok {
			break
		}
		b = rest
		if m.Level != linux.SOL_SOCKET {
			continue
		}
		switch m.Type {
		case linux.SCM_RIGHTS:
			err = a.addFiles(c, m.Data)
		case linux.SCM_CREDENTIALS:
			err = a.setCred(c, m.Data)
		default:
			err = linux.EINVAL
		}
		if err != nil {
			return a, err
		}
	}
	if len(a.files) > 0 {
		err = s.sys.flight.check(c, len(a.files))
	}
	return a, err
}

func (a *ancillary) addFiles(c *vfs.Caller, data []byte) error {
	n := len(data) / 4
	if len(a.files)+n > linux.SCM_MAX_FD {
		return linux.EINVAL
	}
	for i := range n {
		d := c.Files.Lookup(int(int32(binary.LittleEndian.Uint32(data[4*i:]))))
		if d == nil {
			return linux.EBADF
		}
		a.files = append(a.files, d)
	}
	return nil
}

// setCred sets credentials that the sender may have: its own, real, effective or saved, or any with the capability.
func (a *ancillary) setCred(c *vfs.Caller, data []byte) error {
	if len(data) != 12 {
		return linux.EINVAL
	}
	le := binary.LittleEndian
	u := linux.Ucred{PID: int32(le.Uint32(data)), UID: le.Uint32(data[4:]), GID: le.Uint32(data[8:])}
	cr := c.Cred
	uidOK := u.UID == cr.UID || u.UID == cr.EUID || u.UID == cr.SUID || cr.Can(cred.SETUID)
	gidOK := u.GID == cr.GID || u.GID == cr.EGID || u.GID == cr.SGID || cr.Can(cred.SETGID)
	if u.PID != c.PID && !cr.Can(cred.SYS_ADMIN) || !uidOK || !gidOK {
		return linux.EPERM
	}
	a.cred, a.given = u, true
	return nil
}

func (a *ancillary) release() {
	for _, f := range a.files {
		f.Unref()
	}
	a.files = nil
}

// attach puts what is sent along into a packet from s to peer.
func (s *sock) attach(c *vfs.Caller, p *packet, a *ancillary, peer *sock) {
	switch {
	case a.given:
		p.cred = a.cred
	case s.opt.PassCred() || peer.opt.PassCred():
		p.cred = linux.Ucred{PID: c.PID, UID: c.Cred.UID, GID: c.Cred.GID}
	default:
		p.cred = unknown
	}
	if a.files != nil {
		p.files, a.files = a.files, nil
		s.sys.flight.launch(p.files)
	}
}

// detach takes the files of a packet that is taken or, if peek, just looked at: then copies. mu is held; when it no longer is, land
// what was taken.
func (p *packet) detach(peek bool) []*vfs.Description {
	files := p.files
	if files == nil || !peek {
		p.files = nil
		return files
	}
	files = append([]*vfs.Description(nil), files...)
	for _, f := range files {
		f.Ref()
	}
	return files
}

// give adds what came along to a message that is received, or drops it if the program has not asked for it.
func (s *sock) give(c *vfs.Caller, m *socket.Message, u linux.Ucred, files []*vfs.Description) {
	if s.opt.PassCred() {
		m.Put(linux.SOL_SOCKET, linux.SCM_CREDENTIALS, encodeCred(u))
	}
	if len(files) > 0 {
		m.PutFiles(c, files)
	}
}
