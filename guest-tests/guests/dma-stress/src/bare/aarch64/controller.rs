// SPDX-License-Identifier: Apache-2.0 OR BSD-3-Clause

//! The interrupt controller: a GICv3 (Arm IHI 0069), whose lines are shared peripheral interrupts, and whose messages are
//! the ITS's.

use alloc::alloc::alloc_zeroed;
use core::alloc::Layout;
use core::arch::asm;
use core::ops::Range;
use core::ptr::{self, NonNull};
use core::sync::atomic::{AtomicU64, Ordering::Relaxed};

use address::Gpa;
use arm_gic::gicv3::registers::{Gicd, GicrSgi};
use arm_gic::gicv3::{GicCpuInterface, GicV3};
use arm_gic::{IntId, InterruptGroup, UniqueMmioPointer};
use pci_types::PciAddress;
use spin::Mutex;

use super::clock;
use super::its::{self, Its};
use crate::bare::mmio::Mmio;
use crate::bare::vectors;

/// The virtual timer's interrupt, of each processor's own (Linux, include/clocksource/arm_arch_timer.h).
const TIMER: IntId = IntId::ppi(11);
/// The first interrupt of the ITS's.
const FIRST_MESSAGE: u32 = 8192;
/// Bits of an interrupt's number: messages up to 16383.
const NUMBER_BITS: u32 = 14;
/// Of a message's configuration: a priority, and that it is let through.
const CONFIGURED: u8 = 0xa3;

/// Registers of the distributor that let an interrupt through, or not: a bit for each.
const SET_ENABLE: u64 = 0x100;
const CLEAR_ENABLE: u64 = 0x180;
/// Registers of a redistributor.
const CONTROL: u64 = 0;
const TYPE: u64 = 8;
const PROPERTIES: u64 = 0x70;
const PENDING: u64 = 0x78;
const HAS_MESSAGES: u32 = 1;
const REDISTRIBUTOR: u64 = 0x2_0000;
/// Of a table's address: memory that processors share, cached; and that it is all zero.
const SHARED_CACHED: u64 = 1 << 10 | 7 << 7;
const ALL_ZERO: u64 = 1 << 62;
/// What of MPIDR_EL1 is an affinity.
const AFFINITY: u64 = 0xff_00ff_ffff;

static GIC: Mutex<Option<Gic>> = Mutex::new(None);
static DISTRIBUTOR: AtomicU64 = AtomicU64::new(0);

struct Gic {
    gic: GicV3<'static>,
    redistributors: Range<Gpa>,
    /// One byte for each message.
    properties: u64,
    its: Its,
}

/// Takes the controller into use, for this many processors.
///
/// # Safety
/// The registers are there, mapped as a device's, and used by nothing else.
///
/// # Errors
/// What cannot be used.
pub unsafe fn init(
    distributor: &Range<Gpa>,
    redistributors: &Range<Gpa>,
    its: &Range<Gpa>,
    processors: usize,
) -> Result<(), &'static str> {
    let no_registers = "the interrupt controller has no registers";
    let gicd = ptr::with_exposed_provenance_mut::<Gicd>(distributor.start.0 as usize);
    let gicd = NonNull::new(gicd).ok_or(no_registers)?;
    let gicr = ptr::with_exposed_provenance_mut::<GicrSgi>(redistributors.start.0 as usize);
    let gicr = NonNull::new(gicr).ok_or(no_registers)?;
    // SAFETY: as the caller promises. What this file accesses besides are single words that the driver does not cache, and
    // registers in which a store changes the bits that it sets alone.
    let gic = unsafe { GicV3::new(UniqueMmioPointer::new(gicd), gicr, processors) };
    let mut gic = gic.map_err(|_| "the interrupt controller is of another kind")?;
    gic.setup(0);
    let size = 1 << NUMBER_BITS;
    let properties = pages(size - FIRST_MESSAGE as usize, 4096);
    let bytes = ptr::with_exposed_provenance_mut::<u8>(properties as usize);
    // SAFETY: they were just allocated.
    unsafe { ptr::write_bytes(bytes, CONFIGURED, size - FIRST_MESSAGE as usize) };
    DISTRIBUTOR.store(distributor.start.0, Relaxed);
    *GIC.lock() = Some(Gic {
        gic,
        redistributors: redistributors.clone(),
        properties,
        // SAFETY: as the caller promises.
        its: unsafe { Its::new(its) },
    });
    Ok(())
}

/// Memory of zeros for a table, which is never freed.
pub(super) fn pages(bytes: usize, align: usize) -> u64 {
    let layout = Layout::from_size_align(bytes, align);
    let layout = layout.ok().filter(|layout| layout.size() > 0);
    // SAFETY: the layout is not empty.
    let memory = layout.map(|layout| unsafe { alloc_zeroed(layout) });
    let memory = memory.filter(|memory| !memory.is_null());
    let address = memory.map_or(0, |memory| memory.expose_provenance() as u64);
    assert!(
        address != 0,
        "no memory for the interrupt controller's tables"
    );
    address
}

/// This processor's affinity.
pub fn affinity() -> u64 {
    let value: u64;
    // SAFETY: reading the register has no effect.
    unsafe { asm!("mrs {}, mpidr_el1", out(reg) value, options(nomem, nostack)) };
    value & AFFINITY
}

impl Gic {
    /// Which redistributor is this processor's, and its registers.
    fn own(&self) -> Option<(usize, Mmio)> {
        let affinity = affinity();
        let affinity = affinity & 0xff_ffff | affinity >> 32 << 24;
        let count = (self.redistributors.end - self.redistributors.start) / REDISTRIBUTOR;
        let found = (0..count).find_map(|number| {
            let start = self.redistributors.start + number * REDISTRIBUTOR;
            // SAFETY: as `init`'s caller promised.
            let registers = unsafe { Mmio::new(start..start + REDISTRIBUTOR) };
            (registers.get64(TYPE) >> 32 == affinity).then_some((number as usize, registers))
        });
        assert!(
            found.is_some(),
            "processor {affinity:#x} has no redistributor"
        );
        found
    }
}

/// Sets this processor's part up. Its timer ticks from now on, to end sleeps.
pub fn init_local() {
    let mut gic = GIC.lock();
    let Some(gic) = gic.as_mut() else { return };
    let Some((number, registers)) = gic.own() else {
        return;
    };
    gic.gic.init_cpu(number);
    GicCpuInterface::set_priority_mask(0xff);
    GicCpuInterface::enable_group1(true);
    let size = u64::from(NUMBER_BITS - 1);
    registers.set64(PROPERTIES, gic.properties | SHARED_CACHED | size);
    let pending = pages(1 << (NUMBER_BITS - 3), 1 << 16);
    registers.set64(PENDING, pending | SHARED_CACHED | ALL_ZERO);
    registers.set32(CONTROL, registers.get32(CONTROL) | HAS_MESSAGES);
    gic.its.add_processor(number);
    let _ = gic.gic.enable_interrupt(TIMER, Some(number), true);
    clock::set_timer();
}

/// Takes all interrupts that are pending.
pub fn take() {
    while let Some(id) = GicCpuInterface::get_and_acknowledge_interrupt(InterruptGroup::Group1) {
        if id == TIMER {
            clock::set_timer();
        } else if let Some(message) = u32::from(id).checked_sub(FIRST_MESSAGE) {
            vectors::note(message as u8);
        } else if let Some(gsi) = id.spi_index()
            && let Some(vector) = u8::try_from(gsi).ok().and_then(vectors::line)
        {
            vectors::note(vector);
        }
        GicCpuInterface::end_interrupt(id, InterruptGroup::Group1);
    }
}

/// Whether a function needs 64 bits for the address of its messages.
pub const MESSAGES_ARE_HIGH: bool = true;

/// Address and data of a message of `function`'s that raises `vector` on this processor.
pub fn message(function: PciAddress, vector: u8) -> (u64, u32) {
    let mut gic = GIC.lock();
    let Some(gic) = gic.as_mut() else {
        return (0, 0);
    };
    let number = gic.own().map_or(0, |(number, _)| number);
    let requester = u32::from(function.bus()) << 8
        | u32::from(function.device()) << 3
        | u32::from(function.function());
    gic.its
        .route(requester, FIRST_MESSAGE + u32::from(vector), number);
    (gic.its.message_address(), its::EVENT)
}

/// Lets a line of PCI interrupt this processor: `init` has made all lines level-triggered.
pub fn route(gsi: u8) {
    let line = IntId::spi(gsi.into());
    let mut gic = GIC.lock();
    let Some(gic) = gic.as_mut() else { return };
    let _ = gic.gic.distributor().set_routing(line, Some(affinity()));
    let _ = gic.gic.enable_interrupt(line, None, true);
}

/// Keeps a line from interrupting, or lets it. Takes no lock: interrupts come at any time.
pub fn set_masked(gsi: u8, masked: bool) {
    let base = Gpa(DISTRIBUTOR.load(Relaxed));
    // SAFETY: as `init`'s caller promised: a line that interrupts has been routed after that.
    let registers = unsafe { Mmio::new(base..base + 0x1_0000) };
    let number = u64::from(u32::from(IntId::spi(gsi.into())));
    let register = if masked { CLEAR_ENABLE } else { SET_ENABLE };
    registers.set32(register + number / 32 * 4, 1 << (number % 32));
}
