# Firmware that is a whole guest: it fills half a MiB of RAM with numbers, looks whether they are all there, writes a sector to an IDE
# disk and reads it back, again and again, while the 8254 interrupts a thousand times a second. Real mode, no stack but its own.
# load-guest.bin is this, made by ./make; the tests put it at the end of a 64 KiB image.
#
# What it knows, from 0x500: passes, words of RAM that were wrong, ticks, sectors that were wrong, sectors, and whether the time
# stamp counter ever went back (doublewords), then the counter itself.
    .code16
    .set PASSES, 0x500
    .set BAD_WORDS, 0x504
    .set TICKS, 0x508
    .set BAD_SECTORS, 0x50C
    .set SECTORS, 0x510
    .set BACKWARDS, 0x514
    .set STAMP, 0x518
    .globl _start
_start:
    cli
    cld
    xorw %ax, %ax
    movw %ax, %ss
    movw $0x7000, %sp
    movw %ax, %ds
    movw $tick, 0x20                # interrupt 8: IRQ 0
    movw $0xF000, 0x22
    movb $0x11, %al                 # both 8259s: cascade, vectors 8 and 0x70, 8086 mode; IRQ 0 alone
    outb %al, $0x20
    outb %al, $0xA0
    movb $0x08, %al
    outb %al, $0x21
    movb $0x70, %al
    outb %al, $0xA1
    movb $0x04, %al
    outb %al, $0x21
    movb $0x02, %al
    outb %al, $0xA1
    movb $0x01, %al
    outb %al, $0x21
    outb %al, $0xA1
    movb $0xFE, %al
    outb %al, $0x21
    movb $0xFF, %al
    outb %al, $0xA1
    movb $0x34, %al                 # 8254 channel 0, mode 2, 1193182 Hz / 1193
    outb %al, $0x43
    movw $1193, %ax
    outb %al, $0x40
    movb %ah, %al
    outb %al, $0x40
    sti

pass:
    rdtsc
    cmpl STAMP + 4, %edx
    ja 1f
    jb 2f
    cmpl STAMP, %eax
    jae 1f
2:  incl BACKWARDS
1:  movl %eax, STAMP
    movl %edx, STAMP + 4

    movl PASSES, %esi               # seed
    movl %esi, %eax
    movw $0x1000, %bx
3:  movw %bx, %es
    xorw %di, %di
4:  imull $1664525, %eax, %eax
    addl $1013904223, %eax
    movl %eax, %es:(%di)
    addw $4, %di
    jnz 4b
    addw $0x1000, %bx
    cmpw $0x9000, %bx
    jb 3b

    movl %esi, %eax
    movw $0x1000, %bx
5:  movw %bx, %es
    xorw %di, %di
6:  imull $1664525, %eax, %eax
    addl $1013904223, %eax
    cmpl %eax, %es:(%di)
    je 7f
    incl BAD_WORDS
7:  addw $4, %di
    jnz 6b
    addw $0x1000, %bx
    cmpw $0x9000, %bx
    jb 5b

    movb $0x30, %al                 # WRITE SECTOR from 1000:0
    call command
    movw $0x1000, %ax
    movw %ax, %ds
    xorw %si, %si
    movw $256, %cx
    movw $0x1F0, %dx
    rep outsw
    xorw %ax, %ax
    movw %ax, %ds
    call idle
    movb $0x20, %al                 # READ SECTOR to 9000:0
    call command
    movw $0x9000, %ax
    movw %ax, %es
    xorw %di, %di
    movw $256, %cx
    movw $0x1F0, %dx
    rep insw
    movw $0x1000, %ax
    movw %ax, %ds
    xorw %si, %si
    xorw %di, %di
    movw $256, %cx
    repe cmpsw
    movw $0, %ax
    movw %ax, %ds
    je 8f
    incl BAD_SECTORS
8:  incl SECTORS
    incl PASSES
    movb $'.', %al
    movl BAD_WORDS, %ebx
    orl BAD_SECTORS, %ebx
    orl BACKWARDS, %ebx
    jz 9f
    movb $'E', %al
9:  movw $0x3F8, %dx
    outb %al, %dx
    jmp pass

# One sector of drive 0, by the low bits of the pass.
command:
    pushw %ax
    call idle
    movw $0x1F6, %dx
    movb $0xE0, %al
    outb %al, %dx
    movw $0x1F2, %dx
    movb $1, %al
    outb %al, %dx
    incw %dx
    movb PASSES, %al
    andb $0x3F, %al
    outb %al, %dx
    incw %dx
    xorb %al, %al
    outb %al, %dx
    incw %dx
    outb %al, %dx
    popw %ax
    movw $0x1F7, %dx
    outb %al, %dx
1:  inb %dx, %al                    # until not busy and asking for data, or an error
    testb $0x80, %al
    jnz 1b
    testb $0x09, %al
    jz 1b
    testb $0x01, %al
    jz 2f
    incl BAD_SECTORS
2:  ret

idle:
    movw $0x1F7, %dx
1:  inb %dx, %al
    testb $0x80, %al
    jnz 1b
    ret

tick:
    pushw %ax
    pushw %ds
    xorw %ax, %ax
    movw %ax, %ds
    incl TICKS
    movb $0x20, %al
    outb %al, $0x20
    popw %ds
    popw %ax
    iret
