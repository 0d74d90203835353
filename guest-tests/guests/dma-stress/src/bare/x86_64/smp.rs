// SPDX-License-Identifier: Apache-2.0 OR BSD-3-Clause

//! How processors start and stop.

use core::arch::global_asm;
use core::ptr;

use address::Gpa;

use super::{apic, paging};
pub use crate::bare::end::halt as stop;
use crate::bare::{clock, smp};

/// Number of a processor's local APIC.
pub type Cpu = u8;

/// Where processors start, in memory that is free once the boot data is read, and the page
/// behind it with a copy of the root of the page tables: a processor in 32-bit mode has no way to
/// name one above 4 GiB.
pub const TRAMPOLINE: core::ops::Range<Gpa> = Gpa(0x9_0000)..Gpa(0x9_2000);
const ROOT_COPY: u64 = 0x9_1000;
const INIT_MS: u64 = 10;

// The processor starts in real mode with CS at the page. It goes from there to 64-bit mode at
// once: paging and protection together (Intel SDM volume 3, section 11.8.5 has it in two steps,
// and allows this).
global_asm!(
    ".pushsection .rodata.trampoline, \"a\"",
    ".balign 16",
    ".code16",
    "trampoline_start:",
    "cli",
    "cld",
    "movw %cs, %ax",
    "movw %ax, %ds",
    "lgdtl trampoline_gdtr - trampoline_start",
    "movl %cr4, %eax",
    "orl $0x20, %eax",
    "movl %eax, %cr4",
    "movl trampoline_root - trampoline_start, %eax",
    "movl %eax, %cr3",
    "movl $0xc0000080, %ecx",
    "rdmsr",
    "orl $0x100, %eax",
    "wrmsr",
    // Protection and paging on, caches too: they are off after INIT.
    "movl %cr0, %eax",
    "andl $0x9fffffff, %eax",
    "orl $0x80000001, %eax",
    "movl %eax, %cr0",
    "ljmpl *trampoline_far - trampoline_start",
    ".code64",
    "trampoline_long:",
    "movw $0x10, %ax",
    "movw %ax, %ds",
    "movw %ax, %es",
    "movw %ax, %ss",
    "leaq trampoline_values(%rip), %rbx",
    "movq (%rbx), %rax",
    "movq %rax, %cr3",
    "movq 8(%rbx), %rsp",
    "movq 16(%rbx), %rdi",
    "movq 24(%rbx), %rax",
    "xorl %ebp, %ebp",
    "callq *%rax",
    "ud2",
    ".balign 8",
    "trampoline_gdt: .quad 0, 0x00af9b000000ffff, 0x00cf93000000ffff",
    "trampoline_gdtr: .word 23",
    ".long {page} + trampoline_gdt - trampoline_start",
    "trampoline_far: .long {page} + trampoline_long - trampoline_start",
    ".word 8",
    ".balign 8",
    "trampoline_root: .quad {root}",
    // Root of the page tables, top of the stack, number, entry.
    "trampoline_values: .quad 0, 0, 0, 0",
    "trampoline_end:",
    ".popsection",
    page = const TRAMPOLINE.start.0,
    root = const ROOT_COPY,
    options(att_syntax),
);

unsafe extern "C" {
    static trampoline_start: u8;
    static trampoline_values: u8;
    static trampoline_end: u8;
}

/// Starts processors.
#[derive(Debug)]
pub struct Starter(());

impl Starter {
    /// Puts the code where processors start.
    ///
    /// # Safety
    /// [`TRAMPOLINE`] is RAM in which nothing else is, and the page tables map it.
    pub unsafe fn new() -> Self {
        let page = ptr::with_exposed_provenance_mut::<u8>(TRAMPOLINE.start.0 as usize);
        let code = &raw const trampoline_start;
        let len = (&raw const trampoline_end).addr() - code.addr();
        // SAFETY: both pages are as the caller promises, and the code is less than one.
        unsafe {
            ptr::copy_nonoverlapping(code, page, len);
            let copy = ptr::with_exposed_provenance_mut::<u8>(ROOT_COPY as usize);
            let root = ptr::with_exposed_provenance(paging::root() as usize);
            ptr::copy_nonoverlapping(root, copy, 4096);
        }
        Self(())
    }

    /// Sends the signals that start a processor, which is to be the `number`th.
    pub fn start(&self, id: Cpu, stack: u64, number: usize, ticks_per_ms: u64) {
        let fields = (&raw const trampoline_values).addr() - (&raw const trampoline_start).addr();
        let entry: extern "C" fn(usize) -> ! = smp::enter;
        let values = [paging::root(), stack, number as u64, entry as usize as u64];
        let at = TRAMPOLINE.start.0 as usize + fields;
        let at = ptr::with_exposed_provenance_mut::<[u64; 4]>(at);
        // SAFETY: the four words are a part of the code that `new` copied.
        unsafe { at.write_unaligned(values) };
        apic::send_init(id);
        clock::delay(INIT_MS * ticks_per_ms);
        self.again(id);
    }

    /// Sends the last one once more.
    pub fn again(&self, id: Cpu) {
        apic::send_startup(id, (TRAMPOLINE.start.0 >> 12) as u8);
    }

    /// Stops a processor.
    pub fn cancel(&self, id: Cpu) {
        apic::send_init(id);
    }
}
