package vdso

// A program that a signal interrupted in the vDSO may unwind its stack through it (a backtrace, a C++ exception, pthread_cancel).
// One rule is true of all of the code, since no function uses the stack: the return address is on top (DWARF 5, section 6.4;
// LSB Core, "Exception Frames"; System V ABI x86-64, section 3.7).

const (
	ehCIESize   = 24
	ehFDESize   = 24
	ehFrameSize = ehCIESize + ehFDESize + 4

	dwPCRelSdata4   = 0x1b // DW_EH_PE_pcrel | DW_EH_PE_sdata4
	dwUdata4        = 0x03 // DW_EH_PE_udata4
	dwDataRelSdata4 = 0x3b // DW_EH_PE_datarel | DW_EH_PE_sdata4
	dwRSP, dwRA     = 7, 16
	dwDefCFA        = 0x0c
	dwOffset        = 0x80
)

// fillUnwind writes .eh_frame, with one common and one frame description entry, and its index .eh_frame_hdr.
func fillUnwind(sec *[numSections]section) {
	frame, text := &sec[secEHFrame], &sec[secText]
	cie := le.AppendUint32(frame.data[:0], ehCIESize-4)
	cie = le.AppendUint32(cie, 0)
	cie = append(cie, 1, 'z', 'R', 0,
		1, 0x78, dwRA, // code alignment 1, data alignment −8, return address
		1, dwPCRelSdata4,
		dwDefCFA, dwRSP, 8, dwOffset|dwRA, 1) // the frame is RSP+8, the return address one word below it
	fde := le.AppendUint32(frame.data[:ehCIESize], ehFDESize-4)
	fde = le.AppendUint32(fde, ehCIESize+4)
	fde = le.AppendUint32(fde, uint32(text.addr-(frame.addr+len(fde))))
	fde = le.AppendUint32(fde, uint32(len(text.data)))
	_ = append(fde, 0) // what follows in both entries is zero: DW_CFA_nop, and the end of the list

	hdr := &sec[secEHFrameHdr]
	h := append(hdr.data[:0], 1, dwPCRelSdata4, dwUdata4, dwDataRelSdata4)
	h = le.AppendUint32(h, uint32(frame.addr-(hdr.addr+4)))
	h = le.AppendUint32(h, 1)
	h = le.AppendUint32(h, uint32(text.addr-hdr.addr))
	_ = le.AppendUint32(h, uint32(frame.addr+ehCIESize-hdr.addr))
	_ = cie
}
