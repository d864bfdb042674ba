package vfs

import (
	"sync"

	"dinos/kernel/linux"
)

// MkDev makes the number of a device as struct stat has it.
func MkDev(major, minor uint32) uint64 {
	return uint64(minor&0xff) | uint64(major&0xfff)<<8 | uint64(minor&^0xff)<<12 | uint64(major&^0xfff)<<32
}

// Major is the major number of a device.
func Major(dev uint64) uint32 { return uint32(dev>>8)&0xfff | uint32(dev>>32)&^0xfff }

// Minor is the minor number of a device.
func Minor(dev uint64) uint32 { return uint32(dev)&0xff | uint32(dev>>12)&^0xff }

// DeviceOpener opens a device: it returns the behaviour of d. in.Rdev tells which. flags are those of open(2), O_NOCTTY included.
// It may set d.State, and call d.SetStream if the device cannot seek.
type DeviceOpener func(c *Caller, d *Description, in *Inode, flags uint32) (File, error)

type devices struct {
	mu    sync.RWMutex
	chars map[uint64]DeviceOpener // by MkDev; guarded by mu
	major map[uint32]DeviceOpener // all minors; guarded by mu
}

func (t *devices) init() {
	t.chars = map[uint64]DeviceOpener{}
	t.major = map[uint32]DeviceOpener{}
}

// RegisterChar says how a character device is opened. A later registration replaces an earlier one.
func (v *VFS) RegisterChar(major, minor uint32, open DeviceOpener) {
	v.devices.mu.Lock()
	defer v.devices.mu.Unlock()
	v.devices.chars[MkDev(major, minor)] = open
}

// RegisterMajor says how all character devices of a major number are opened that have no registration of their own.
func (v *VFS) RegisterMajor(major uint32, open DeviceOpener) {
	v.devices.mu.Lock()
	defer v.devices.mu.Unlock()
	v.devices.major[major] = open
}

func (t *devices) open(c *Caller, d *Description, in *Inode, flags uint32) (File, error) {
	if in.Type() != linux.S_IFCHR {
		return nil, linux.ENXIO
	}
	t.mu.RLock()
	open := t.chars[in.rdev]
	if open == nil {
		open = t.major[Major(in.rdev)]
	}
	t.mu.RUnlock()
	if open == nil {
		return nil, linux.ENXIO
	}
	return open(c, d, in, flags)
}
