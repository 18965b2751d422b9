//! What is done before the C library starts.
//!
//! A position-independent program relocates its own tables of addresses (vtables, texts, places of panics), some 7,400 of them on
//! 31 pages, before anything else. Each page is a copy of the file's, made at the first touch: a fault of its own, of which
//! a third is the way into the kernel and back. One advice makes them all (MADV_POPULATE_WRITE); a kernel older than 5.14 refuses
//! it, and each is a fault. host/build.sh makes this the entry.

#![allow(unsafe_code)]

use std::arch::global_asm;

// SAFETY: the advice changes no content, and _start finds registers and stack as the kernel left them.
//
// From the first of what is relocated (.tdata, .fini_array and .init_array are the first sections of RELRO) to the end of .data.
// The linker defines these names. At the entry nothing is in registers but what rdx says of a function to be called at the
// exit, which for a static program is 0 (System V ABI for AMD64, section 3.4.1), and the stack pointer; the kernel keeps all but
// rax, rcx and r11.
global_asm!(
    ".pushsection .text.sandwire_start, \"ax\", @progbits",
    ".globl sandwire_start",
    ".hidden __init_array_start",
    ".hidden _edata",
    "sandwire_start:",
    "lea rdi, [rip + __init_array_start]",
    "and rdi, -4096",
    "lea rsi, [rip + _edata]",
    "sub rsi, rdi",
    "mov edx, {populate_write}",
    "mov eax, {madvise}",
    "syscall",
    "xor edx, edx",
    "jmp _start",
    ".popsection",
    populate_write = const libc::MADV_POPULATE_WRITE,
    madvise = const libc::SYS_madvise,
);
