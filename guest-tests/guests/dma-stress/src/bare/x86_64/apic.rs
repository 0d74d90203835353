// SPDX-License-Identifier: Apache-2.0 OR BSD-3-Clause

//! Local APICs in xAPIC mode, and the I/O APIC (Intel SDM volume 3, chapter 12; 82093AA).

use core::ptr;
use core::sync::atomic::AtomicU64;
use core::sync::atomic::Ordering::Relaxed;

use pci_types::PciAddress;
use spin::Mutex;
use x86_64::instructions::interrupts::without_interrupts;
use x86_64::instructions::port::Port;

use super::traps::{SPURIOUS, TIMER};
use crate::bare::vectors;

/// Ticks of the timer in a millisecond, as KVM and QEMU have it: 1 GHz.
pub const TIMER_PER_MS: u64 = 1_000_000;
/// How often the timer ends a sleep.
const TICK_MS: u64 = 10;

const ID: u64 = 0x20;
const TASK_PRIORITY: u64 = 0x80;
const END_OF_INTERRUPT: u64 = 0xb0;
const SPURIOUS_VECTOR: u64 = 0xf0;
const COMMAND_LOW: u64 = 0x300;
const COMMAND_HIGH: u64 = 0x310;
const TIMER_VECTOR: u64 = 0x320;
const TIMER_INITIAL: u64 = 0x380;
const TIMER_CURRENT: u64 = 0x390;
const TIMER_DIVIDE: u64 = 0x3e0;

const ENABLED: u32 = 1 << 8;
const MASKED: u32 = 1 << 16;
const PERIODIC: u32 = 1 << 17;
const DIVIDE_BY_1: u32 = 0b1011;
const PENDING: u32 = 1 << 12;
const INIT: u32 = 0x4500;
const STARTUP: u32 = 0x4600;

const IO_SELECT: u64 = 0;
const IO_WINDOW: u64 = 0x10;
const IO_VERSION: u32 = 1;
const IO_REDIRECTION: u32 = 0x10;
const LEVEL: u32 = 1 << 15;
const ACTIVE_LOW: u32 = 1 << 13;

static LOCAL: AtomicU64 = AtomicU64::new(0);
static IO: Mutex<Option<IoApic>> = Mutex::new(None);

#[derive(Clone, Copy)]
struct IoApic {
    base: u64,
    first: u32,
}

/// Notes where the APICs are.
///
/// # Safety
/// They are there, and mapped uncached.
pub unsafe fn init(local: u64, io: Option<(u64, u32)>) {
    LOCAL.store(local, Relaxed);
    *IO.lock() = io.map(|(base, first)| IoApic { base, first });
}

/// Silences the two 8259 of a PC, whose vectors are those of exceptions.
pub fn mask_8259() {
    for data in [0x21, 0xa1] {
        // SAFETY: these are the interrupt masks of the two; nothing uses them.
        unsafe { Port::new(data).write(0xff_u8) };
    }
}

fn read(base: u64, register: u64) -> u32 {
    // SAFETY: `init`'s caller vouches for the base, and registers are constants of this file.
    unsafe { ptr::with_exposed_provenance::<u32>((base + register) as usize).read_volatile() }
}

fn write(base: u64, register: u64, value: u32) {
    let at = ptr::with_exposed_provenance_mut::<u32>((base + register) as usize);
    // SAFETY: as above.
    unsafe { at.write_volatile(value) };
}

fn local() -> u64 {
    LOCAL.load(Relaxed)
}

/// Sets this processor's APIC up. Its timer ticks from now on, to end sleeps.
pub fn init_local() {
    write(local(), TASK_PRIORITY, 0);
    write(local(), SPURIOUS_VECTOR, ENABLED | u32::from(SPURIOUS));
    write(local(), TIMER_DIVIDE, DIVIDE_BY_1);
    write(local(), TIMER_VECTOR, PERIODIC | u32::from(TIMER));
    write(local(), TIMER_INITIAL, timer_count(TICK_MS));
}

fn timer_count(ms: u64) -> u32 {
    u32::try_from(ms * TIMER_PER_MS).unwrap_or(u32::MAX)
}

/// Lets the timer run for about `ms`, and returns its ticks.
pub fn run_timer_down(ms: u64) -> u64 {
    let half = u32::MAX / 2;
    write(local(), SPURIOUS_VECTOR, ENABLED | u32::from(SPURIOUS));
    write(local(), TIMER_DIVIDE, DIVIDE_BY_1);
    write(local(), TIMER_VECTOR, MASKED | u32::from(TIMER));
    write(local(), TIMER_INITIAL, half);
    let run = loop {
        let run = half.saturating_sub(read(local(), TIMER_CURRENT));
        if run >= timer_count(ms) {
            break run;
        }
    };
    write(local(), TIMER_INITIAL, 0);
    u64::from(run)
}

/// This processor's number.
pub fn id() -> u8 {
    (read(local(), ID) >> 24) as u8
}

/// Ends the interrupt that is being handled.
pub fn end_of_interrupt() {
    write(local(), END_OF_INTERRUPT, 0);
}

fn command(to: u8, command: u32) {
    write(local(), COMMAND_HIGH, u32::from(to) << 24);
    write(local(), COMMAND_LOW, command);
    while read(local(), COMMAND_LOW) & PENDING != 0 {
        core::hint::spin_loop();
    }
}

/// Resets another processor.
pub fn send_init(to: u8) {
    command(to, INIT);
}

/// Starts another processor at a page below 1 MiB.
pub fn send_startup(to: u8, page: u8) {
    command(to, STARTUP | u32::from(page));
}

/// Whether a function needs 64 bits for the address of its messages.
pub const MESSAGES_ARE_HIGH: bool = false;

/// Address and data of a message of any function's that raises `vector` on this processor.
pub fn message(_: PciAddress, vector: u8) -> (u64, u32) {
    (0xfee0_0000 | u64::from(id()) << 12, u32::from(vector))
}

/// The entry of an interrupt in the I/O APIC's table: `change` gets its lower half.
fn redirect(gsi: u8, to: Option<u8>, change: impl FnOnce(u32) -> u32) {
    without_interrupts(|| {
        let io = IO.lock();
        let Some(io) = *io else { return };
        let select = |register| write(io.base, IO_SELECT, register);
        select(IO_VERSION);
        let last = read(io.base, IO_WINDOW) >> 16 & 0xff;
        let Some(entry) = u32::from(gsi)
            .checked_sub(io.first)
            .filter(|entry| *entry <= last)
        else {
            return;
        };
        let low = IO_REDIRECTION + 2 * entry;
        if let Some(to) = to {
            select(low + 1);
            write(io.base, IO_WINDOW, u32::from(to) << 24);
        }
        select(low);
        let old = read(io.base, IO_WINDOW);
        write(io.base, IO_WINDOW, change(old));
    });
}

/// Lets a level-triggered line of PCI interrupt this processor.
pub fn route(gsi: u8) {
    if let Some(vector) = vectors::line(gsi) {
        redirect(gsi, Some(id()), |_| LEVEL | ACTIVE_LOW | u32::from(vector));
    }
}

/// Keeps a line from raising anything, or lets it.
pub fn set_masked(gsi: u8, masked: bool) {
    redirect(gsi, None, |old| match masked {
        true => old | MASKED,
        false => old & !MASKED,
    });
}
