// SPDX-License-Identifier: Apache-2.0 OR BSD-3-Clause

//! The other processors.

use alloc::vec;
use core::arch::global_asm;
use core::ptr;
use core::sync::atomic::{AtomicUsize, Ordering::SeqCst};

use address::Gpa;
use spin::Mutex;
use x86_64::instructions::interrupts;

use super::{apic, clock, paging, traps};

/// Where processors start, in memory that is free once the boot data is read, and the page
/// behind it with a copy of the root of the page tables: a processor in 32-bit mode has no way to
/// name one above 4 GiB.
pub const TRAMPOLINE: core::ops::Range<Gpa> = Gpa(0x9_0000)..Gpa(0x9_2000);
const ROOT_COPY: u64 = 0x9_1000;
const STACK: usize = 32 << 10;
/// How long a processor may take to come up.
const START_TIMEOUT_MS: u64 = 1000;
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

/// What processors do once they run, given their number.
type Work = &'static (dyn Fn(usize) + Sync);

static UP: AtomicUsize = AtomicUsize::new(0);
static DONE: AtomicUsize = AtomicUsize::new(0);
static WORK: Mutex<Option<Work>> = Mutex::new(None);

/// Starts the processors `others`, and calls `missing` for each that does not come up. Returns
/// how many run, with this one.
///
/// # Safety
/// [`TRAMPOLINE`] is RAM in which nothing else is, and the page tables map it.
pub unsafe fn start(others: &[u8], ticks_per_ms: u64, missing: impl Fn(u8)) -> usize {
    let page = ptr::with_exposed_provenance_mut::<u8>(TRAMPOLINE.start.0 as usize);
    let code = &raw const trampoline_start;
    let len = (&raw const trampoline_end).addr() - code.addr();
    let fields = (&raw const trampoline_values).addr() - code.addr();
    let root = paging::root();
    // SAFETY: both pages are as the caller promises, and the code is less than one.
    unsafe {
        ptr::copy_nonoverlapping(code, page, len);
        let copy = ptr::with_exposed_provenance_mut::<u8>(ROOT_COPY as usize);
        ptr::copy_nonoverlapping(ptr::with_exposed_provenance(root as usize), copy, 4096);
    }
    let mut running = 1;
    for id in others {
        let stack = vec![0_u8; STACK].leak();
        let top = stack.as_mut_ptr_range().end.expose_provenance() as u64 & !15;
        let entry: extern "C" fn(usize) -> ! = enter;
        let values = [root, top, running as u64, entry as usize as u64];
        // SAFETY: the four words are a part of the code just copied.
        unsafe { page.add(fields).cast::<[u64; 4]>().write_unaligned(values) };
        if bring_up(*id, running, ticks_per_ms) {
            running += 1;
        } else {
            // It may still come: by then nothing may handle it, nor its number.
            apic::send_init(*id);
            missing(*id);
        }
    }
    running
}

/// Sends the signals that start a processor, and waits until it is the `number`th that runs.
fn bring_up(id: u8, number: usize, ticks_per_ms: u64) -> bool {
    let page = (TRAMPOLINE.start.0 >> 12) as u8;
    apic::send_init(id);
    clock::delay(INIT_MS * ticks_per_ms);
    apic::send_startup(id, page);
    let start = clock::now();
    let mut again = true;
    while UP.load(SeqCst) < number {
        let ms = clock::now().wrapping_sub(start) / ticks_per_ms;
        if again && ms >= 200 {
            apic::send_startup(id, page);
            again = false;
        }
        if ms >= START_TIMEOUT_MS {
            return false;
        }
        core::hint::spin_loop();
    }
    true
}

extern "C" fn enter(number: usize) -> ! {
    traps::load();
    apic::init_local();
    UP.fetch_add(1, SeqCst);
    interrupts::enable();
    let work = loop {
        if let Some(work) = *WORK.lock() {
            break work;
        }
        interrupts::enable_and_hlt();
    };
    work(number);
    DONE.fetch_add(1, SeqCst);
    interrupts::disable();
    loop {
        x86_64::instructions::hlt();
    }
}

/// Lets all `running` processors work, this one as number 0, and waits for all to be done.
pub fn work_together(running: usize, work: &(dyn Fn(usize) + Sync)) {
    // SAFETY: every processor that takes it is waited for below, before `work` ends; none takes it
    // twice.
    *WORK.lock() = Some(unsafe { core::mem::transmute::<&(dyn Fn(usize) + Sync), Work>(work) });
    work(0);
    while DONE.load(SeqCst) + 1 < running {
        core::hint::spin_loop();
    }
}
