package dkernel

import (
	"errors"
	"fmt"

	"dinos/dkernel/proc"
	"dinos/dkernel/programs"
	"dinos/kernel/machine"
	"dinos/kernel/monitor"
	"dinos/kernel/testproto"
)

// runAlone is a data kernel without a rack. With a module, an initramfs or a program, it runs init= (by default /init) of it on the
// console, and ends the machine with what became of that; else there is a prompt. init= may have arguments: init="/bin/sh -c 'echo hello'".
func runAlone(m *machine.Machine) error {
	if len(m.Boot.Modules) == 0 {
		return monitor.Run(m)
	}
	line, err := m.Args.String("init", "/init")
	if err != nil {
		return err
	}
	args, err := words(line)
	if err != nil {
		return err
	}
	path := args[0]
	trace, err := m.Args.Bool("strace")
	if err != nil {
		return err
	}
	memory, slices := machine.OwnMemory()
	exited := make(chan uint32, 1)
	var first *proc.Process
	cfg := programs.Config{Machine: m, Memory: memory, Source: slices, Root: m.Module(0), RootName: path, Hostname: m.Name, Trace: trace,
		Exited: func(p *proc.Process, status uint32) {
			if p == first {
				exited <- status
			}
		}}
	p, err := programs.New(cfg)
	if err != nil {
		return err
	}
	status, err := p.Init(m, path, args, []string{"PATH=/bin:/sbin:/usr/bin:/usr/sbin", "TERM=linux", "HOME=/"}, func(x *proc.Process) { first = x }, exited)
	if err != nil {
		return err
	}
	if lines := p.Kernel.Table.Missed(); len(lines) > 0 {
		fmt.Println("dinos: system calls that are not served:")
		for _, l := range lines[:min(len(lines), maxMissed)] {
			fmt.Println("  " + l)
		}
		if n := len(lines) - maxMissed; n > 0 {
			fmt.Printf("  and %d more\n", n)
		}
	}
	if status != 0 {
		fmt.Printf("dinos: %s ended with status %#x\n", path, status)
		machine.Exit(testproto.ExitFail)
	}
	machine.Exit(testproto.ExitPass)
	return errors.New("the machine did not end")
}

// maxMissed is how many calls that are not served are listed.
const maxMissed = 20

// words splits a command into words at blanks that are not between single quotes.
func words(line string) ([]string, error) {
	var list []string
	var word []byte
	in, quoted := false, false
	for _, c := range []byte(line) {
		switch {
		case c == '\'':
			quoted, in = !quoted, true
		case c == ' ' && !quoted:
			if in {
				list = append(list, string(word))
			}
			word, in = word[:0], false
		default:
			word, in = append(word, c), true
		}
	}
	if in {
		list = append(list, string(word))
	}
	if quoted || len(list) == 0 {
		return nil, fmt.Errorf("init=%q: want a program and its arguments, with quotes in pairs", line)
	}
	return list, nil
}
