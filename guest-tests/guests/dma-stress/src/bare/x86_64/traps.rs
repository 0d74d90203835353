// SPDX-License-Identifier: Apache-2.0 OR BSD-3-Clause

//! Interrupts are counted; faults end the machine with a word on where and why.

use core::arch::global_asm;
use core::cell::UnsafeCell;

use x86_64::VirtAddr;
use x86_64::instructions::segmentation::{CS, DS, ES, SS, Segment};
use x86_64::instructions::tables::lidt;
use x86_64::registers::control::Cr2;
use x86_64::structures::DescriptorTablePointer;
use x86_64::structures::gdt::{Descriptor, GlobalDescriptorTable, SegmentSelector};

use super::{apic, power};
use crate::bare::{end, serial, vectors};

/// Vector of the local APIC's timer.
pub const TIMER: u8 = 0xf0;
/// Vector of spurious interrupts.
pub const SPURIOUS: u8 = 0xff;
const EXCEPTIONS: u8 = 32;
const VECTORS: usize = 256;
/// Bytes from one stub to the next.
const STUB: u64 = 16;
/// Present, 64-bit interrupt gate (Intel SDM volume 3, section 7.14.1).
const GATE: u64 = 0x8e00;
/// Exceptions that push an error code: 8, 10 to 14, 17, 21, 29, 30.
const WITH_CODE: u32 = 0x6022_7d00;

struct Tables(UnsafeCell<([[u64; 2]; VECTORS], GlobalDescriptorTable)>);

// SAFETY: written by `init` before other processors run, and only read by processors after that.
unsafe impl Sync for Tables {}

static TABLES: Tables = Tables(UnsafeCell::new((
    [[0; 2]; VECTORS],
    GlobalDescriptorTable::new(),
)));

/// What the stubs leave on the stack.
#[repr(C)]
struct Frame {
    registers: [u64; 9],
    vector: u64,
    code: u64,
    rip: u64,
}

global_asm!(
    ".pushsection .text.stubs, \"ax\"",
    ".balign 16",
    "trap_stubs:",
    ".set trap_number, 0",
    ".rept 256",
    ".balign 16",
    // Where the processor pushes no error code, one is made up.
    ".if trap_number >= 32 || (({with_code} >> trap_number) & 1) == 0",
    "push 0",
    ".endif",
    "push trap_number",
    "jmp trap_common",
    ".set trap_number, trap_number + 1",
    ".endr",
    "trap_common:",
    "push rax",
    "push rcx",
    "push rdx",
    "push rsi",
    "push rdi",
    "push r8",
    "push r9",
    "push r10",
    "push r11",
    "cld",
    "mov rdi, rsp",
    "push rbp",
    // The processor aligned the stack before it pushed five words; with two, nine and one of
    // ours it needs one more.
    "mov rbp, rsp",
    "and rsp, -16",
    "call {trap}",
    "mov rsp, rbp",
    "pop rbp",
    "pop r11",
    "pop r10",
    "pop r9",
    "pop r8",
    "pop rdi",
    "pop rsi",
    "pop rdx",
    "pop rcx",
    "pop rax",
    "add rsp, 16",
    "iretq",
    ".popsection",
    with_code = const WITH_CODE,
    trap = sym trap,
);

unsafe extern "C" {
    static trap_stubs: u8;
}

/// Builds the tables and lets this processor use them.
pub fn init() {
    let tables = TABLES.0.get();
    // SAFETY: this runs once, before other processors and with interrupts off.
    let (gates, segments) = unsafe { &mut *tables };
    let code = segments.append(Descriptor::kernel_code_segment());
    segments.append(Descriptor::kernel_data_segment());
    for (gate, number) in gates.iter_mut().zip(0..) {
        let stub = (&raw const trap_stubs).addr() as u64 + number * STUB;
        *gate = [
            stub & 0xffff | u64::from(code.0) << 16 | GATE << 32 | (stub >> 16 & 0xffff) << 48,
            stub >> 32,
        ];
    }
    load();
}

/// Lets this processor use the tables.
pub fn load() {
    // SAFETY: `init` is done with them.
    let (gates, segments) = unsafe { &*TABLES.0.get() };
    let (code, data) = (SegmentSelector(1 << 3), SegmentSelector(2 << 3));
    // SAFETY: the tables are static and right: one code and one data segment of ring 0, and a
    // gate for every vector.
    unsafe {
        segments.load_unsafe();
        CS::set_reg(code);
        SS::set_reg(data);
        DS::set_reg(data);
        ES::set_reg(data);
        lidt(&DescriptorTablePointer {
            limit: (size_of_val(gates) - 1) as u16,
            base: VirtAddr::from_ptr(gates),
        });
    }
}

extern "C" fn trap(frame: &Frame) {
    let vector = frame.vector as u8;
    if vector < EXCEPTIONS {
        fault(frame);
    }
    vectors::note(vector);
    if vector != SPURIOUS {
        apic::end_of_interrupt();
    }
}

fn fault(frame: &Frame) -> ! {
    serial::last_words(format_args!(
        "Bail out! exception {} with code {:#x} at {:#x}, CR2 {:#x}",
        frame.vector,
        frame.code,
        frame.rip,
        Cr2::read_raw()
    ));
    power::off(end::FAILED)
}
