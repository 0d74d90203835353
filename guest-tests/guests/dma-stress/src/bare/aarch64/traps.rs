// SPDX-License-Identifier: Apache-2.0 OR BSD-3-Clause

//! Interrupts are counted; faults end the machine with a word on where and why.

use core::arch::{asm, global_asm};

use super::{controller, power};
use crate::bare::{end, serial};

/// The entry of interrupts in the mode that this program is always in: the level's own stack pointer (Arm ARM, D1.3.1).
const INTERRUPT: u64 = 5;

global_asm!(
    ".pushsection .text.vectors, \"ax\"",
    ".balign 2048",
    ".global trap_vectors",
    "trap_vectors:",
    ".set trap_number, 0",
    ".rept 16",
    ".balign 128",
    "stp x0, x1, [sp, #-16]!",
    "mov x0, #trap_number",
    "b trap_common",
    ".set trap_number, trap_number + 1",
    ".endr",
    "trap_common:",
    "stp x2, x3, [sp, #-16]!",
    "stp x4, x5, [sp, #-16]!",
    "stp x6, x7, [sp, #-16]!",
    "stp x8, x9, [sp, #-16]!",
    "stp x10, x11, [sp, #-16]!",
    "stp x12, x13, [sp, #-16]!",
    "stp x14, x15, [sp, #-16]!",
    "stp x16, x17, [sp, #-16]!",
    "stp x18, x30, [sp, #-16]!",
    "bl {trap}",
    "ldp x18, x30, [sp], #16",
    "ldp x16, x17, [sp], #16",
    "ldp x14, x15, [sp], #16",
    "ldp x12, x13, [sp], #16",
    "ldp x10, x11, [sp], #16",
    "ldp x8, x9, [sp], #16",
    "ldp x6, x7, [sp], #16",
    "ldp x4, x5, [sp], #16",
    "ldp x2, x3, [sp], #16",
    "ldp x0, x1, [sp], #16",
    "eret",
    ".popsection",
    trap = sym trap,
);

unsafe extern "C" {
    static trap_vectors: u8;
}

/// Lets this processor use the vectors.
pub fn init() {
    load();
}

/// Lets this processor use the vectors.
pub fn load() {
    let vectors = (&raw const trap_vectors).addr();
    // SAFETY: there are handlers for all of them.
    unsafe { asm!("msr vbar_el1, {}", "isb", in(reg) vectors, options(nostack)) };
}

extern "C" fn trap(number: u64) {
    if number != INTERRUPT {
        fault(number);
    }
    controller::take();
}

fn fault(number: u64) -> ! {
    let (syndrome, at, address): (u64, u64, u64);
    // SAFETY: reading the registers has no effect.
    unsafe {
        asm!("mrs {}, esr_el1", "mrs {}, elr_el1", "mrs {}, far_el1",
            out(reg) syndrome, out(reg) at, out(reg) address, options(nomem, nostack));
    }
    serial::last_words(format_args!(
        "Bail out! exception {number} with ESR {syndrome:#x} at {at:#x}, FAR {address:#x}"
    ));
    power::off(end::FAILED)
}
