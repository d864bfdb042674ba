package replica

import (
	"fmt"
	"hash/fnv"
	"reflect"
	"strconv"

	"dinos/nr/oplog"
)

// CheckOp refuses op types that cannot travel in shared memory and returns a fingerprint of the layout of O, by which kernels
// of different builds notice that they disagree. Allowed are integers of fixed width, floats, complex numbers, and arrays
// and structs of them: any bytes that a peer may have written are then a valid value.
func CheckOp[O any]() (size int, fingerprint uint64, err error) {
	t := reflect.TypeFor[O]()
	size = opSize[O]()
	if size == 0 || size > oplog.MaxOpSize {
		return 0, 0, fmt.Errorf("%w: op type %v has %d bytes, want 1 to %d", oplog.ErrConfig, t, size, oplog.MaxOpSize)
	}
	text, err := describe(t, t.String())
	if err != nil {
		return 0, 0, err
	}
	h := fnv.New64a()
	h.Write([]byte(text))
	return size, h.Sum64(), nil
}

func describe(t reflect.Type, path string) (string, error) {
	switch t.Kind() {
	case reflect.Int8, reflect.Int16, reflect.Int32, reflect.Int64, reflect.Uint8, reflect.Uint16, reflect.Uint32,
		reflect.Uint64, reflect.Float32, reflect.Float64, reflect.Complex64, reflect.Complex128:
		return t.Kind().String(), nil
	case reflect.Array:
		e, err := describe(t.Elem(), path+"[]")
		return "[" + strconv.Itoa(t.Len()) + "]" + e, err
	case reflect.Struct:
		s := "{"
		for i := range t.NumField() {
			f := t.Field(i)
			e, err := describe(f.Type, path+"."+f.Name)
			if err != nil {
				return "", err
			}
			s += f.Name + "@" + strconv.Itoa(int(f.Offset)) + " " + e + ";"
		}
		return s + "}" + strconv.Itoa(int(t.Size())), nil
	case reflect.Bool:
		return "", fmt.Errorf("%w: op field %s is a bool, which has invalid bit patterns; want uint8", oplog.ErrConfig, path)
	case reflect.Int, reflect.Uint, reflect.Uintptr:
		return "", fmt.Errorf("%w: op field %s is %v, want an integer of fixed width such as %v64", oplog.ErrConfig, path, t,
			map[bool]string{true: "int", false: "uint"}[t.Kind() == reflect.Int])
	}
	return "", fmt.Errorf("%w: op field %s is a %v, want a value without pointers (variable-size data travels as operand)",
		oplog.ErrConfig, path, t.Kind())
}
