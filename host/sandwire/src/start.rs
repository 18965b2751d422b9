//! What is done before the C library starts.
//!
//! First the memory image (`image`): with one, data and heap are there, and what is left to do is to move the code to where they
//! expect it. Code can't move from under itself, so the moves are made by one page that stays.
//!
//! Without one the program relocates its own tables of addresses (vtables, texts, places of panics), some 7,400 of them on 31 pages.
//! Each page is a copy of the file's, made at the first touch: a fault of its own, of which a third is the way into the kernel and
//! back. One advice makes them all (MADV_POPULATE_WRITE); a kernel older than 5.14 refuses it, and each is a fault.
//!
//! host/build.sh makes this the entry.

#![allow(unsafe_code)]

use std::arch::global_asm;

// SAFETY: _start and __libc_start_main find registers and stack as they would without this, and nothing that is used moves but by
// the plan (image::loader). The advice changes no content.
//
// At the entry nothing is in registers but what rdx says of a function to be called at the exit, which for a static program is 0
// (System V ABI for AMD64, section 3.4.1), and the stack pointer, which is aligned to 16; the kernel keeps all but rax, rcx and r11.
// The plan (112 bytes) and what the loader has to know (40) lie below. A move that fails has left the program in two places, and only
// a limit of mappings or memory can make it fail (mremap(2)): there is nothing to do but to say so.
//
// From the first of what is relocated (.tdata, .fini_array and .init_array are the first sections of RELRO) to the end of .data.
// The linker defines these names.
global_asm!(
    ".pushsection .text.sandwire_start, \"ax\", @progbits",
    ".balign 4096",
    ".globl sandwire_start",
    ".hidden __init_array_start",
    ".hidden __ehdr_start",
    ".hidden _edata",
    "sandwire_start:",
    "mov r12, rsp",
    "sub rsp, 160",
    "lea rax, [rip + __ehdr_start]",
    "mov [rsp + 112], rax",
    "lea rax, [rip + sandwire_start]",
    "mov [rsp + 120], rax",
    "lea rax, [rip + _start]",
    "mov [rsp + 128], rax",
    "lea rax, [rip + sandwire_ready]",
    "mov [rsp + 136], rax",
    "lea rax, [rip + SANDWIRE_DIRECTORY]",
    "mov [rsp + 144], rax",
    "mov rdi, r12",
    "mov rsi, rsp",
    "lea rdx, [rsp + 112]",
    "call sandwire_plan",
    "test al, al",
    "jz 4f",
    "mov rbx, [rsp]",
    "lea r13, [rsp + 16]",
    "2:",
    "mov rdi, [r13]",
    "mov rsi, [r13 + 8]",
    "mov rdx, rsi",
    "mov r10d, {to_there}",
    "mov r8, [r13 + 16]",
    "mov eax, {mremap}",
    "syscall",
    "cmp rax, r8",
    "jne 3f",
    "add r13, 24",
    "dec rbx",
    "jnz 2b",
    "mov rax, [rsp + 8]",
    "mov rsp, r12",
    "xor edx, edx",
    "jmp rax",
    "3:",
    "mov edi, 1",
    "lea rsi, [rip + 5f]",
    "lea rdx, [rip + 6f]",
    "sub rdx, rsi",
    "mov eax, {write}",
    "syscall",
    "mov edi, 1",
    "mov eax, {exit}",
    "syscall",
    "4:",
    "mov rsp, r12",
    "lea rdi, [rip + __init_array_start]",
    "and rdi, -4096",
    "lea rsi, [rip + _edata]",
    "sub rsi, rdi",
    "mov edx, {populate_write}",
    "mov eax, {madvise}",
    "syscall",
    "xor edx, edx",
    "jmp _start",
    "5:",
    ".ascii \"{{\\n    \\\"code\\\": 116,\\n    \\\"msg\\\": \\\"sandwire could not move its code to where its memory image has it\\\",\\n    \\\"details\\\": \\\"mremap(2) failed: there is too little memory, or a limit of mappings; free memory, then try again\\\"\\n}}\"",
    "6:",
    ".balign 4096",
    ".popsection",
    // As _start of musl's Scrt1.o calls it, but that nothing is to be relocated.
    ".pushsection .text.sandwire_ready, \"ax\", @progbits",
    "sandwire_ready:",
    "xor ebp, ebp",
    "lea rdi, [rip + main]",
    "mov rsi, [rsp]",
    "lea rdx, [rsp + 8]",
    "xor ecx, ecx",
    "xor r8d, r8d",
    "xor r9d, r9d",
    "and rsp, -16",
    "call __libc_start_main",
    "hlt",
    ".popsection",
    to_there = const libc::MREMAP_MAYMOVE | libc::MREMAP_FIXED,
    mremap = const libc::SYS_mremap,
    write = const libc::SYS_write,
    exit = const libc::SYS_exit_group,
    populate_write = const libc::MADV_POPULATE_WRITE,
    madvise = const libc::SYS_madvise,
);
