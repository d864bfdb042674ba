package vm

import (
	"bufio"
	"os"
	"slices"
	"strings"
)

// Accel is how QEMU executes guest code.
type Accel struct {
	KVM bool
	Why string // for the log
}

// DetectAccel chooses KVM where it works. The device alone does not mean that: where the processor's virtualisation is not
// exposed, /dev/kvm may exist and emulate, a hundred times slower than QEMU does.
func DetectAccel() Accel { return detectAccel("/proc/cpuinfo", "/dev/kvm") }

func detectAccel(cpuinfo, device string) Accel {
	flag, err := virtFlag(cpuinfo)
	if err != nil {
		return Accel{Why: "TCG: " + err.Error()}
	}
	if flag == "" {
		return Accel{Why: "TCG: the processor shows neither vmx nor svm"}
	}
	f, err := os.OpenFile(device, os.O_RDWR, 0)
	if err != nil {
		return Accel{Why: "TCG: " + err.Error()}
	}
	f.Close()
	return Accel{KVM: true, Why: "KVM: " + flag + " and " + device}
}

// virtFlag returns "vmx" or "svm" if the first processor in the cpuinfo file has it, else "".
func virtFlag(path string) (string, error) {
	f, err := os.Open(path)
	if err != nil {
		return "", err
	}
	defer f.Close()
	for s := bufio.NewScanner(f); s.Scan(); {
		key, value, _ := strings.Cut(s.Text(), ":")
		if strings.TrimSpace(key) != "flags" {
			continue
		}
		for _, want := range []string{"vmx", "svm"} {
			if slices.Contains(strings.Fields(value), want) {
				return want, nil
			}
		}
		return "", nil
	}
	return "", nil
}

// args returns the -accel arguments.
func (a Accel) args() []string {
	if a.KVM {
		return []string{"-accel", "kvm"}
	}
	// Guest atomics are atomic towards other machines only with one host thread a vCPU.
	return []string{"-accel", "tcg,thread=multi"}
}

// cpu returns the default -cpu argument.
func (a Accel) cpu() string {
	if a.KVM {
		return "host"
	}
	// REP STOSB is emulated byte by byte: without ERMS, guest C libraries use plain stores, which are 15 times faster.
	return "max,-erms"
}
