package emi

// Hello is the image of a disk whose boot sector prints a line to the serial
// port and rests until its power button is pressed: a guest that is there as soon
// as the firmware is, and gone as soon as it is asked to. With what follows, the
// image has size bytes (64 KiB at least, for firmware that wants a disk to have
// cylinders).
func Hello(line string, size int) []byte {
	code := []byte{
		0xfa,       // cli
		0x31, 0xc0, // xor ax, ax
		0x8e, 0xd8, // mov ds, ax
		0xbe, 0x00, 0x7d, // mov si, 0x7d00   the text, in the sector's second half
		0xba, 0xfd, 0x03, // next: mov dx, 0x3fd   line status
		0xec,       // wait: in al, dx
		0xa8, 0x20, // test al, 0x20
		0x74, 0xfb, // jz wait
		0xba, 0xf8, 0x03, // mov dx, 0x3f8
		0xac,       // lodsb
		0x84, 0xc0, // test al, al
		0x74, 0x03, // jz rest
		0xee,       // out dx, al
		0xeb, 0xed, // jmp next
		0xba, 0x02, 0x06, // rest: mov dx, 0x602   what ACPI's first event block tells of:
		0xb8, 0x00, 0x01, // mov ax, 0x100   the power button
		0xef,             // out dx, ax
		0xfb,             // sti
		0xf4,             // sleep: hlt   until the next tick of the clock
		0xba, 0x00, 0x06, // mov dx, 0x600
		0xed,             // in ax, dx
		0xf6, 0xc4, 0x01, // test ah, 1
		0x74, 0xf6, // jz sleep
		0xba, 0x04, 0x06, // mov dx, 0x604   its control block:
		0xb8, 0x00, 0x20, // mov ax, 0x2000   soft off
		0xef,       // out dx, ax
		0xeb, 0xed, // jmp sleep
	}
	image := make([]byte, max(size, 1<<16))
	copy(image, code)
	if n := copy(image[0x100:0x1f0], line+"\r\n"); n < len(line)+2 {
		panic("emi: a line of at most 238 bytes fits into a boot sector")
	}
	image[510], image[511] = 0x55, 0xaa
	return image
}
