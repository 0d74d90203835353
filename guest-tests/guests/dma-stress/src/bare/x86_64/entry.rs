// SPDX-License-Identifier: Apache-2.0 OR BSD-3-Clause

//! The first instructions.
//!
//! The loader jumps to `_start` in 64-bit mode with the zero page in RSI and no stack; it has
//! moved the image as a whole and left the relocations to it.

use core::cell::UnsafeCell;

use crate::bare::run;

const STACK: usize = 64 << 10;

#[repr(C, align(16))]
struct Stack(UnsafeCell<[u8; STACK]>);

// SAFETY: nothing but the stack pointer of the first processor refers to it.
unsafe impl Sync for Stack {}

static FIRST_STACK: Stack = Stack(UnsafeCell::new([0; STACK]));

// R_X86_64_RELATIVE is type 8: the word at the offset becomes base + addend. Any other type cannot
// be dealt with, and nothing can report it yet.
core::arch::global_asm!(
    ".pushsection .text.start, \"ax\"",
    ".global _start",
    "_start:",
    "cli",
    "cld",
    "lea rdi, [rip + __image_start]",
    "lea rbx, [rip + __rela_start]",
    "lea rcx, [rip + __rela_end]",
    "2:",
    "cmp rbx, rcx",
    "jae 4f",
    "cmp dword ptr [rbx + 8], 8",
    "jne 3f",
    "mov rax, [rbx]",
    "mov rdx, [rbx + 16]",
    "add rdx, rdi",
    "mov [rdi + rax], rdx",
    "add rbx, 24",
    "jmp 2b",
    "3:",
    "hlt",
    "jmp 3b",
    "4:",
    "lea rsp, [rip + {stack} + {size}]",
    "mov rdi, rsi",
    "xor ebp, ebp",
    "call {start}",
    "ud2",
    ".popsection",
    stack = sym FIRST_STACK,
    size = const STACK,
    start = sym start,
);

unsafe extern "C" {
    static __image_start: u8;
    static __image_end: u8;
}

/// The addresses of the image, with its heap and stacks.
pub fn image() -> core::ops::Range<u64> {
    (&raw const __image_start).addr() as u64..(&raw const __image_end).addr() as u64
}

extern "C" fn start(zero_page: u64) -> ! {
    run::run(zero_page)
}
