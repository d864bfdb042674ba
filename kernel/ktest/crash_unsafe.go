package ktest

import (
	"reflect"
	"unsafe"

	"dinos/kernel/x86"
)

// jump calls the code at p.
func jump(p *[16]byte) {
	code := unsafe.Pointer(p)
	closure := unsafe.Pointer(&code)
	f := *(*func())(unsafe.Pointer(&closure))
	f()
}

// writeText stores into a function.
func writeText() {
	pc := reflect.ValueOf(x86.Pause).Pointer()
	*(*byte)(unsafe.Add(nil, pc)) = 0
}

// writeRodata stores into a string constant.
func writeRodata() {
	s := "constant"
	*unsafe.StringData(s) = 'C'
}
