package machine

import (
	"encoding/binary"

	"dinos/kernel/ureg"
)

// The image of XSAVE in its standard form (SDM vol. 1, 13.4): the legacy area of FXSAVE, a header, then the components.
const (
	imageMXCSR  = 24
	imageMask   = 28 // MXCSR_MASK
	imageXMM    = 160
	imageLegacy = 512 // the header: XSTATE_BV, XCOMP_BV, and 48 reserved bytes
	imageHeader = 64

	stateX87 = 1
	stateSSE = 2
	stateAVX = 4

	mxcsrMask = 0xffff // bits of MXCSR that exist on every CPU with DAZ, so on all that are supported
)

var le = binary.LittleEndian

// Size implements ureg.CPU.
func (t *UserThread) Size() int {
	if t.image != nil {
		return len(t.image)
	}
	return userImageSize()
}

// Features implements ureg.CPU.
func (t *UserThread) Features() uint64 { return max(found.features.xcr0, stateX87|stateSSE) }

// Reset implements ureg.CPU.
func (t *UserThread) Reset(f *ureg.Frame) {
	kernel.SyncUser(&t.u)
	clear(t.image)
	le.PutUint16(t.image, 0x37f) // the x87 control word of FNINIT
	le.PutUint32(t.image[imageMXCSR:], ureg.DefaultMXCSR)
	// XSTATE_BV is zero: XRSTOR initialises everything. FXRSTOR takes what is here.
	f.X = [16][2]uint64{}
	f.MXCSR = ureg.DefaultMXCSR
}

// Save implements ureg.CPU.
func (t *UserThread) Save(f *ureg.Frame, image []byte) {
	kernel.SyncUser(&t.u)
	copy(image, t.image)
	for i, x := range f.X {
		le.PutUint64(image[imageXMM+16*i:], x[0])
		le.PutUint64(image[imageXMM+16*i+8:], x[1])
	}
	le.PutUint32(image[imageMXCSR:], uint32(f.MXCSR))
	le.PutUint32(image[imageMask:], mxcsrMask)
	if found.features.xcr0 == 0 {
		return
	}
	h := image[imageLegacy:]
	bv := le.Uint64(h)
	if bv&stateX87 == 0 {
		clear(image[:imageMXCSR])
		clear(image[32:imageXMM])
		le.PutUint16(image, 0x37f)
	}
	le.PutUint64(h, bv|stateSSE)
}

// Load implements ureg.CPU.
func (t *UserThread) Load(f *ureg.Frame, image []byte) bool {
	mxcsr := le.Uint32(image[imageMXCSR:])
	if mxcsr&^mxcsrMask != 0 {
		return false
	}
	bv := uint64(stateX87 | stateSSE)
	if found.features.xcr0 != 0 {
		h := image[imageLegacy : imageLegacy+imageHeader]
		bv = le.Uint64(h)
		if bv&^found.features.xcr0 != 0 {
			return false
		}
		for _, b := range h[8:] {
			if b != 0 {
				return false
			}
		}
	}
	kernel.SyncUser(&t.u)
	copy(t.image, image)
	f.X = [16][2]uint64{}
	f.MXCSR = ureg.DefaultMXCSR
	if bv&(stateSSE|stateAVX) != 0 {
		f.MXCSR = uint64(mxcsr) // XRSTOR loads it for either (SDM vol. 1, 13.8.1)
	}
	if bv&stateSSE != 0 {
		for i := range f.X {
			f.X[i] = [2]uint64{le.Uint64(image[imageXMM+16*i:]), le.Uint64(image[imageXMM+16*i+8:])}
		}
	}
	return true
}
