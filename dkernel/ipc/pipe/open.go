package pipe

import (
	"dinos/dkernel/vfs"
	"dinos/dkernel/wait"
	"dinos/kernel/linux"
)

const (
	reading = iota
	writing
)

// met is announced when somebody opens a FIFO. Nothing else of pipes uses that event.
const met = wait.RdBand

// Open opens a FIFO: it counts d, and waits for somebody at the other end if d has just one and may block (fifo(7)). Errors:
// linux.ENXIO for writing without a reader and with O_NONBLOCK, linux.ERESTARTSYS. After an error d must not be released
// through p. A pipe (pipe(2)) is opened by /proc/PID/fd/N, and never waits nor fails.
func (p *Pipe) Open(c *vfs.Caller, d *vfs.Description) error {
	r, w := d.CanRead(), d.CanWrite()
	p.mu.Lock()
	if w && !r && !p.nameless && d.Nonblock() && p.readers.Load() == 0 {
		p.mu.Unlock()
		return linux.ENXIO
	}
	p.join(r, w)
	other := reading
	if r {
		other = writing
	}
	seen := p.opened[other].Load()
	alone := !p.nameless && r != w && (r && p.writers.Load() == 0 || w && p.readers.Load() == 0)
	p.mu.Unlock()
	p.both.Wake(met)
	if !alone {
		return nil
	}
	if d.Nonblock() {
		d.State = seen // until somebody writes, there is no end of file to report: see unmet
		return nil
	}
	// Somebody who came and went again counts too.
	err := c.Sleeper.Until(&p.both, met, wait.Forever, func() error {
		if p.opened[other].Load() == seen {
			return linux.EAGAIN
		}
		return nil
	})
	if err != nil {
		p.leave(r, w)
	}
	return err
}

// join counts a description, with mu held.
func (p *Pipe) join(r, w bool) {
	if r {
		p.readers.Add(1)
		p.opened[reading].Add(1)
	}
	if w {
		p.writers.Add(1)
		p.opened[writing].Add(1)
	}
}

// unmet tells whether d is of a FIFO and nobody opened that for writing since.
func (p *Pipe) unmet(d *vfs.Description) bool {
	seen, ok := d.State.(uint32)
	return ok && seen == p.opened[writing].Load()
}

// Register has v open FIFOs.
func Register(v *vfs.VFS) {
	v.RegisterFIFO(func(c *vfs.Caller, d *vfs.Description, in *vfs.Inode) (vfs.File, error) {
		p, ok := in.Private().(*Pipe)
		if !ok {
			p = in.SetPrivate(New()).(*Pipe)
		}
		return p, p.Open(c, d)
	})
}

// Pipe2 is pipe2(2): it returns descriptors of the end to read and the end to write. Errors: linux.EINVAL for other flags than
// O_CLOEXEC, O_DIRECT and O_NONBLOCK; linux.EMFILE.
func Pipe2(c *vfs.Caller, flags uint32) (r, w int, err error) {
	if flags&^(linux.O_CLOEXEC|linux.O_DIRECT|linux.O_NONBLOCK) != 0 {
		return 0, 0, linux.EINVAL
	}
	p := New()
	p.nameless = true
	p.join(true, true)
	dn := c.FS.VFS().NewPipe(c)
	dn.Inode().SetPrivate(p)
	status := flags & (linux.O_DIRECT | linux.O_NONBLOCK)
	rd := c.NewNameless(dn, p, linux.O_RDONLY|status&^linux.O_DIRECT, vfs.Stream)
	wd := c.NewNameless(dn, p, linux.O_WRONLY|status, vfs.Stream)
	dn.Inode().Unref()
	cloexec := flags&linux.O_CLOEXEC != 0
	if r, err = c.Files.Install(rd, 0, c.OpenLimit, cloexec); err != nil {
		rd.Unref()
		wd.Unref()
		return 0, 0, err
	}
	if w, err = c.Files.Install(wd, 0, c.OpenLimit, cloexec); err != nil {
		_ = c.Files.Close(c, r)
		wd.Unref()
		return 0, 0, err
	}
	return r, w, nil
}
