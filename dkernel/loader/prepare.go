package loader

import (
	"strings"

	"dinos/kernel/linux"
)

// Prepare finds out what a request would run. On success the Program has the executable open. On an error nothing is.
// Errors are linux.ENOEXEC for what is no program, ELIBBAD for dynamic ones, EINVAL for malformed ones, ENOENT, EACCES and the like
// of interpreters, ELOOP for scripts whose interpreters are scripts, E2BIG, and what reading returns.
func Prepare(r *Request, sys *System) (*Program, error) {
	p := &Program{sys: sys, Path: r.Path, Comm: comm(r.Path), File: r.File, args: r.Args, StackLimit: r.StackLimit}
	if err := p.prepare(r); err != nil {
		p.Close()
		return nil, err
	}
	return p, nil
}

func (p *Program) prepare(r *Request) error {
	if err := p.args.add(len(r.Path) + 1); err != nil {
		return err
	}
	path := r.Path // of p.File
	var head [headSize]byte
	for depth := 0; ; depth++ {
		if depth > maxScripts {
			return fail(linux.ELOOP, r.Path, "its interpreter is a script, and so on, more than %d deep", maxScripts)
		}
		if _, err := readFull(p.File, head[:], 0); err != nil {
			return failed(err, path, "reading its start")
		}
		if head[0] != '#' || head[1] != '!' {
			break
		}
		interp, err := p.script(r, path, &head)
		if err != nil {
			return err
		}
		path = interp
	}
	x, err := parseELF(path, p.File, &head)
	if err != nil {
		return err
	}
	p.elf = x
	t := newCred(r.Cred, p.File.Attr(), r.Unsafe)
	p.Cred, p.Secure = t.cred, t.secure
	if t.dumpable {
		p.Dumpable = 1
	}
	// A 64-bit program starts without READ_IMPLIES_EXEC (arch/x86/kernel/process_64.c, set_personality_64bit).
	p.Personality = r.Personality &^ (t.personality | linux.READ_IMPLIES_EXEC)
	if p.Secure {
		p.StackLimit = min(p.StackLimit, defaultStack)
	}
	p.random = p.Personality&linux.ADDR_NO_RANDOMIZE == 0
	p.layOut()
	return nil
}

// script goes from a script to its interpreter.
func (p *Program) script(r *Request, path string, head *[headSize]byte) (string, error) {
	interp, arg, hasArg, err := parseScript(path, head)
	if err != nil {
		return "", err
	}
	if r.Inaccessible {
		return "", fail(linux.ENOENT, path, "its interpreter could not open it: the descriptor is closed by execve (FD_CLOEXEC)")
	}
	if hasArg {
		err = p.prepend(interp, arg, path)
	} else {
		err = p.prepend(interp, path)
	}
	if err != nil {
		return "", err
	}
	if interp == "" {
		// Linux looks an empty path up as the working directory, which is no file.
		return "", fail(linux.EACCES, path, "there is no interpreter after #!")
	}
	f, err := r.Opener.OpenExec(interp)
	if err != nil {
		return "", failed(err, path, "its interpreter "+interp)
	}
	p.File.Close()
	p.File = f
	return interp, nil
}

// comm is the name that a thread gets of a path: what is behind the last slash, at most 15 bytes (TASK_COMM_LEN).
func comm(path string) string {
	name := path[strings.LastIndexByte(path, '/')+1:]
	return name[:min(len(name), 15)]
}
