// SPDX-License-Identifier: Apache-2.0 OR BSD-3-Clause

//! The first instructions of each processor.
//!
//! The loader jumps to the first byte of the image at EL1, with the device tree in X0, interrupts masked and the MMU off
//! (Linux, Documentation/arch/arm64/booting.rst); it has left the relocations to the image.

use core::cell::UnsafeCell;

use crate::bare::run;

const STACK: usize = 64 << 10;

#[repr(C, align(16))]
struct Stack(UnsafeCell<[u8; STACK]>);

// SAFETY: nothing but the stack pointer of the first processor refers to it.
unsafe impl Sync for Stack {}

static FIRST_STACK: Stack = Stack(UnsafeCell::new([0; STACK]));

/// Tables of levels 0 to 2 that map one block, the image's.
#[repr(C, align(4096))]
struct FirstTables(UnsafeCell<[[u64; 512]; 3]>);

// SAFETY: they are written by the first instructions, and only read by processors after that.
unsafe impl Sync for FirstTables {}

static FIRST_TABLES: FirstTables = FirstTables(UnsafeCell::new([[0; 512]; 3]));

/// Attributes of memory: those of index 0 are a device's (nGnRE), those of index 1 RAM's, cached.
const MAIR: u64 = 0xff04;
/// Addresses of 48 bits, tables in cached memory that processors share, pages of 4 KiB, nothing in the upper half.
const TCR: u64 = 16 | 1 << 8 | 1 << 10 | 3 << 12 | 1 << 23;
/// What is always 1, and caches and MMU on.
const SCTLR: u64 = 0x30d0_0800 | 1 << 12 | 1 << 2 | 1;
/// A block of RAM: valid, attributes of index 1, inner shareable, accessed.
const BLOCK: u64 = 1 | 1 << 2 | 3 << 8 | 1 << 10;
const TABLE: u64 = 3;
/// Longest physical address in TCR_EL1.IPS: 48 bits. More of them need other pages or FEAT_LPA2.
const MOST_BITS: u64 = 5;

// What is written with the caches off is in memory, and KVM cleans and invalidates the caches when they are turned on
// (arch/arm64/kvm/mmu.c, `kvm_toggle_cache`): no line of what was there before is left.
//
// R_AARCH64_RELATIVE is type 1027: the word at the offset becomes base + addend. Any other type cannot be dealt with, and
// nothing can report it yet.
core::arch::global_asm!(
    ".pushsection .text.start, \"ax\"",
    ".global _start",
    "_start:",
    "b 2f",
    ".word 0",
    ".quad 0",
    ".quad __image_size",
    // Little-endian, pages of 4 KiB, anywhere in memory.
    ".quad 0xa",
    ".quad 0, 0, 0",
    ".ascii \"ARMd\"",
    ".word 0",
    "2:",
    "msr daifset, #0xf",
    "mov x19, x0",
    "adrp x20, __image_start",
    "adrp x1, __rela_start",
    "add x1, x1, :lo12:__rela_start",
    "adrp x2, __rela_end",
    "add x2, x2, :lo12:__rela_end",
    "3:",
    "cmp x1, x2",
    "b.hs 5f",
    "ldr x3, [x1, #8]",
    "cmp w3, #1027",
    "b.ne 4f",
    "ldr x3, [x1]",
    "ldr x4, [x1, #16]",
    "add x4, x4, x20",
    "str x4, [x20, x3]",
    "add x1, x1, #24",
    "b 3b",
    "4:",
    "wfi",
    "b 4b",
    "5:",
    "adrp x1, __bss_start",
    "adrp x2, __bss_end",
    "6:",
    "stp xzr, xzr, [x1], #16",
    "cmp x1, x2",
    "b.lo 6b",
    // One block at each level: x0 to x2 are the tables.
    "adrp x0, {tables}",
    "add x1, x0, #4096",
    "add x2, x1, #4096",
    "mov x5, #{table}",
    "ubfx x3, x20, #39, #9",
    "orr x4, x1, x5",
    "str x4, [x0, x3, lsl #3]",
    "ubfx x3, x20, #30, #9",
    "orr x4, x2, x5",
    "str x4, [x1, x3, lsl #3]",
    "ubfx x3, x20, #21, #9",
    "ldr x4, ={block}",
    "orr x4, x4, x20",
    "str x4, [x2, x3, lsl #3]",
    "bl turn_mmu_on",
    "adrp x1, {stack}",
    "add x1, x1, :lo12:{stack}",
    "mov x2, #{size}",
    "add sp, x1, x2",
    "mov x0, x19",
    "mov x29, xzr",
    "mov x30, xzr",
    "b {start}",
    // The root of the tables is in X0.
    "turn_mmu_on:",
    "dsb sy",
    "ldr x1, ={mair}",
    "msr mair_el1, x1",
    "ldr x1, ={tcr}",
    "mrs x2, id_aa64mmfr0_el1",
    "and x2, x2, #0xf",
    "mov x3, #{most_bits}",
    "cmp x2, x3",
    "csel x2, x2, x3, lo",
    "bfi x1, x2, #32, #3",
    "msr tcr_el1, x1",
    "msr ttbr0_el1, x0",
    "isb",
    "tlbi vmalle1",
    "ic iallu",
    "dsb nsh",
    "isb",
    "ldr x1, ={sctlr}",
    "msr sctlr_el1, x1",
    "isb",
    "ret",
    // Another processor, with its slot in X0.
    ".global second_start",
    "second_start:",
    "msr daifset, #0xf",
    "mov x19, x0",
    "adrp x0, {tables}",
    "bl turn_mmu_on",
    "ldp x2, x0, [x19]",
    "cbz x2, 4b",
    "mov sp, x2",
    "mov x29, xzr",
    "mov x30, xzr",
    "b {second}",
    ".ltorg",
    ".popsection",
    tables = sym FIRST_TABLES,
    table = const TABLE,
    block = const BLOCK,
    stack = sym FIRST_STACK,
    size = const STACK,
    start = sym start,
    mair = const MAIR,
    tcr = const TCR,
    most_bits = const MOST_BITS,
    sctlr = const SCTLR,
    second = sym super::smp::second,
);

unsafe extern "C" {
    static __image_start: u8;
    static __image_end: u8;
    static second_start: u8;
}

/// The addresses of the image, with its heap and stacks.
pub fn image() -> core::ops::Range<u64> {
    (&raw const __image_start).addr() as u64..(&raw const __image_end).addr() as u64
}

/// Where another processor begins, with the address of what it is to do in X0.
pub fn second() -> u64 {
    (&raw const second_start).addr() as u64
}

extern "C" fn start(device_tree: u64) -> ! {
    run::run(device_tree)
}
