package qemu

import "fmt"

// The smallest guests there are: boot sectors, assembled by hand. The firmware
// loads one at 0x7c00 in real mode.

const (
	sectorSize   = 512
	sectorOrigin = 0x7c00

	// The firmware boots from no disk that is much smaller than this.
	sectorDiskSize = 1 << 20

	exitPort   = 0xf4 // where the probe's isa-debug-exit is
	exitStatus = 0x10<<1 | 1
	probeText  = "mallee runs\n"
)

// probeSector goes the way of a kernel: page tables, long mode, and there
// writes to the serial port and ends QEMU with exitStatus.
func probeSector() []byte {
	code := []byte{
		0xfa,       // cli
		0x31, 0xc0, // xor ax, ax
		0x8e, 0xd8, // mov ds, ax
		0x8e, 0xc0, // mov es, ax
		0xfc,             // cld
		0xbf, 0x00, 0x10, // mov di, 0x1000        three page tables from here,
		0xb9, 0x00, 0x18, // mov cx, 0x1800
		0xf3, 0xab, // rep stosw                  empty but for the first entries:
		0xc7, 0x06, 0x00, 0x10, 0x03, 0x20, // mov word [0x1000], 0x2003
		0xc7, 0x06, 0x00, 0x20, 0x03, 0x30, // mov word [0x2000], 0x3003
		0xc6, 0x06, 0x00, 0x30, 0x83, // mov byte [0x3000], 0x83    2 MiB at 0
		0x0f, 0x01, 0x16, 0x80, 0x7c, // lgdt [gdtr]
		0x66, 0xb8, 0x20, 0x00, 0x00, 0x00, // mov eax, 0x20
		0x0f, 0x22, 0xe0, // mov cr4, eax          physical address extension
		0x66, 0xb8, 0x00, 0x10, 0x00, 0x00, // mov eax, 0x1000
		0x0f, 0x22, 0xd8, // mov cr3, eax
		0x66, 0xb9, 0x80, 0x00, 0x00, 0xc0, // mov ecx, 0xc0000080
		0x0f, 0x32, // rdmsr
		0x0d, 0x00, 0x01, // or ax, 0x100          long mode, when paging begins
		0x0f, 0x30, // wrmsr
		0x0f, 0x20, 0xc0, // mov eax, cr0
		0x66, 0x0d, 0x01, 0x00, 0x00, 0x80, // or eax, 0x80000001
		0x0f, 0x22, 0xc0, // mov cr0, eax          now
		0xea, 0x56, 0x7c, 0x08, 0x00, // jmp 0x08:long
		// long, at 0x7c56:
		0xbe, 0x86, 0x7c, 0x00, 0x00, // mov esi, text
		0xac,       // next: lodsb
		0x84, 0xc0, // test al, al
		0x74, 0x07, // jz end
		0x66, 0xba, 0xf8, 0x03, // mov dx, 0x3f8
		0xee,       // out dx, al
		0xeb, 0xf4, // jmp next
		0xb0, exitStatus >> 1, // end: mov al, 0x10
		0xe6, exitPort, // out 0xf4, al
		0xf4,       // stop: hlt
		0xeb, 0xfd, // jmp stop
		0x90, 0x90, // the table is aligned
		// gdt, at 0x7c70: none, and 64-bit code
		0, 0, 0, 0, 0, 0, 0, 0,
		0, 0, 0, 0, 0, 0x9a, 0x20, 0,
		// gdtr, at 0x7c80
		0x0f, 0x00, 0x70, 0x7c, 0x00, 0x00,
		// text, at 0x7c86
	}
	return bootable(append(append(code, probeText...), 0))
}

// ending is what a guest of printSector does when it has printed.
type ending []byte

var (
	halts = ending{
		0xfa,       // cli
		0xf4,       // hlt
		0xeb, 0xfd, // jmp to the hlt
	}
	powersOff = append(ending{
		0xba, 0x04, 0x06, // mov dx, 0x604        ACPI's power management control
		0xb8, 0x00, 0x20, // mov ax, 0x2000       soft off
		0xef, // out dx, ax
	}, halts...)
	// obeys powers off when the power button is pressed. It looks at the button
	// at each tick of the firmware's clock.
	obeys = append(ending{
		0xba, 0x02, 0x06, // mov dx, 0x602
		0xb8, 0x00, 0x01, // mov ax, 0x100        have the button noticed
		0xef,             // out dx, ax
		0xba, 0x00, 0x06, // mov dx, 0x600
		0xfb,             // tick: sti
		0xf4,             // hlt
		0xed,             // in ax, dx
		0xf6, 0xc4, 0x01, // test ah, 1            pressed?
		0x74, 0xf8, // jz tick
	}, powersOff...)
)

// printSector writes text to the serial port, and ends.
func printSector(text string, end ending) []byte {
	code := []byte{
		0x31, 0xc0, // xor ax, ax
		0x8e, 0xd8, // mov ds, ax
	}
	return bootable(append(code, printCode(sectorOrigin+len(code), text, end)...))
}

// printCode is for ds:origin in real mode.
func printCode(origin int, text string, end ending) []byte {
	const textPointer = 2 // where the code has the text's address
	code := []byte{
		0xfc,       // cld
		0xbe, 0, 0, // mov si, text
		0xac,       // next: lodsb
		0x84, 0xc0, // test al, al
		0x74, 0x06, // jz end
		0xba, 0xf8, 0x03, // mov dx, 0x3f8
		0xee,       // out dx, al
		0xeb, 0xf5, // jmp next
	}
	code = append(code, end...)
	address := origin + len(code)
	code[textPointer], code[textPointer+1] = byte(address), byte(address>>8)
	return append(append(code, text...), 0)
}

// bootable pads code to a sector that the firmware takes for one.
func bootable(code []byte) []byte {
	const signature = 2
	if len(code) > sectorSize-signature {
		panic(fmt.Sprintf("hypervisor/qemu: boot sector of %d bytes", len(code)))
	}
	sector := make([]byte, sectorSize)
	copy(sector, code)
	sector[sectorSize-2], sector[sectorSize-1] = 0x55, 0xaa
	return sector
}
