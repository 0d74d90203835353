// SPDX-License-Identifier: Apache-2.0 OR BSD-3-Clause

//! The host interface that a passthrough function needs.

use std::fmt;
use std::ops::Range;

use address::{Gpa, Hpa};

use pci_config::{InterruptKind, PerKind};

use crate::pci::{MsiMessage, Region};

/// One region of the device as the host describes it.
#[derive(Clone, Debug, Default, PartialEq, Eq)]
pub struct RegionInfo {
    /// Size in bytes; 0 where the device has no such region.
    pub size: u64,
    /// Physical address at which the host placed it; `None` for I/O ports and absent regions.
    pub host_address: Option<Hpa>,
    /// Parts of the region that can be mapped into the guest, aligned to the host's pages, ascending. Empty
    /// where the region can only be trapped.
    pub mappable: Vec<Range<u64>>,
}

/// The fixed facts about a device, read once at start-up.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct HostInfo {
    /// How messages name the device, for example `0000:01:00.0`.
    pub name: String,
    /// Regions BAR0 to BAR5.
    pub bars: [RegionInfo; 6],
    /// The expansion ROM.
    pub rom: RegionInfo,
    /// Size of config space in bytes: 256 or 4096.
    pub config_size: u16,
    /// Bytes of a page of the host's, a power of two: what can be mapped by itself.
    pub page_size: u64,
    /// The vectors of each kind that the host serves.
    pub interrupts: PerKind<Vectors>,
    /// Whether a function reset that the guest asks for can be served: the host can reset the function
    /// alone, and by more than D3hot and back. The guest is offered none otherwise.
    pub resettable: bool,
}

/// What the host serves of a kind of interrupt.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub struct Vectors {
    /// How many vectors: 0 where there is no such interrupt, 1 for INTx, at most 32 of MSI (1 on x86 without interrupt
    /// remapping), at most 2048 of MSI-X.
    pub count: u16,
    /// Whether vectors can be added while the kind is on. Where they cannot (`VFIO_IRQ_INFO_NORESIZE`: MSI, and MSI-X as
    /// behind Intel's VMD), all are turned on at once.
    pub grows: bool,
}

impl Vectors {
    /// `count` vectors that are turned on at once.
    #[must_use]
    pub const fn fixed(count: u16) -> Self {
        Self {
            count,
            grows: false,
        }
    }

    /// At most `count` vectors, which can be turned on one after the other.
    #[must_use]
    pub const fn growing(count: u16) -> Self {
        Self { count, grows: true }
    }
}

/// Failure of an operation on the host's side of a device. The text names the device, the
/// operation and the cause.
#[derive(Debug)]
pub struct HostError(pub Box<dyn std::error::Error + Send + Sync>);

impl fmt::Display for HostError {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        self.0.fmt(f)?;
        let mut cause = self.0.source();
        while let Some(error) = cause {
            write!(f, ": {error}")?;
            cause = error.source();
        }
        Ok(())
    }
}

/// Without a source: the text has it.
impl std::error::Error for HostError {}

/// The host's side of one passed-through function: its registers, the mapping of its BARs into
/// the guest and the delivery of its interrupts. Implemented over VFIO and KVM by the monitor and
/// by a script in tests.
///
/// Calls may come from any vCPU thread, one at a time. An error leaves the state as it was before
/// the call.
pub trait HostFunction: Send {
    /// The device's fixed facts.
    fn info(&self) -> &HostInfo;

    /// Reads 1, 2 or 4 bytes of config space at a naturally aligned `offset`.
    fn config_read(&mut self, offset: u16, data: &mut [u8]) -> Result<(), HostError>;

    /// Reads config space from its start: as many bytes as `data` has, whole dwords. A host that has one call for all of
    /// them uses it; by default there is one for each dword.
    fn config_read_all(&mut self, data: &mut [u8]) -> Result<(), HostError> {
        let mut dwords = (0..).step_by(4).zip(data.chunks_mut(4));
        dwords.try_for_each(|(offset, dword)| self.config_read(offset, dword))
    }

    /// Writes 1, 2 or 4 bytes of config space at a naturally aligned `offset`.
    fn config_write(&mut self, offset: u16, data: &[u8]) -> Result<(), HostError>;

    /// Reads 1, 2, 4 or 8 bytes of a region. Fails where memory decode is off.
    fn region_read(
        &mut self,
        region: Region,
        offset: u64,
        data: &mut [u8],
    ) -> Result<(), HostError>;

    /// Writes 1, 2, 4 or 8 bytes of a region. Fails where memory decode is off.
    fn region_write(&mut self, region: Region, offset: u64, data: &[u8]) -> Result<(), HostError>;

    /// Reads registers of 8 bytes that follow each other, from `offset` on, in their order. A host that has one call for
    /// all of them uses it; by default there is one for each.
    fn region_read_all(
        &mut self,
        region: Region,
        offset: u64,
        data: &mut [u8],
    ) -> Result<(), HostError> {
        let mut registers = (offset..).step_by(8).zip(data.chunks_mut(8));
        registers.try_for_each(|(offset, register)| self.region_read(region, offset, register))
    }

    /// Writes registers of 8 bytes that follow each other, as [`region_read_all`](Self::region_read_all) reads them.
    fn region_write_all(
        &mut self,
        region: Region,
        offset: u64,
        data: &[u8],
    ) -> Result<(), HostError> {
        let mut registers = (offset..).step_by(8).zip(data.chunks(8));
        registers.try_for_each(|(offset, register)| self.region_write(region, offset, register))
    }

    /// Makes `area` of BAR `bar` (within one of its `mappable` ranges) appear at `gpa` for the
    /// guest, so that accesses cause no exit.
    fn map(&mut self, bar: u8, area: Range<u64>, gpa: Gpa) -> Result<(), HostError>;

    /// Takes away what [`map`](Self::map) put in place for the same `bar` and `area`; accesses
    /// are trapped from then on. Must be called before memory decode goes off.
    fn unmap(&mut self, bar: u8, area: Range<u64>) -> Result<(), HostError>;

    /// Turns interrupt `kind` on, while none is on, with vectors `0..vectors`, each disconnected. The
    /// device is programmed; what it raises is remembered until its vector is connected. INTx is
    /// connected by this call itself and has level semantics.
    ///
    /// Returns how many vectors are on: at least one, and perhaps not as many as were asked for.
    /// Others are added by [`connect`](Self::connect) if the kind [grows](Vectors::grows).
    fn enable_interrupts(&mut self, kind: InterruptKind, vectors: u16) -> Result<u16, HostError>;

    /// Turns the kind that is on off and forgets all vectors; nothing to do if none is on.
    fn disable_interrupts(&mut self) -> Result<(), HostError>;

    /// Delivers what the message-signalled `vector` raises, and raised since it was enabled or
    /// disconnected, to the guest as `message`. Replaces an earlier message. Fails where the vector is
    /// not on and cannot be turned on.
    fn connect(&mut self, vector: u16, message: MsiMessage) -> Result<(), HostError>;

    /// Stops delivery of `vector` and remembers what it raises from now on: the vector is masked.
    fn disconnect(&mut self, vector: u16) -> Result<(), HostError>;

    /// Writes the registers of the vectors that are on to the device again, which may have lost
    /// them. What it raised before is kept.
    fn restore_vectors(&mut self) -> Result<(), HostError>;

    /// Whether a disconnected `vector` has raised an interrupt that is still to be delivered.
    fn pending(&mut self, vector: u16) -> bool;

    /// Resets the function. Config space and BAR addresses come back as they were.
    fn reset(&mut self) -> Result<(), HostError>;

    /// The function has reset itself: the guest took it from D3hot to D0, and its `No_Soft_Reset`
    /// is 0 (PCI Power Management 1.2, section 5.4.1). By default nothing is to be forgotten.
    fn was_reset(&mut self) {}
}

impl HostFunction for Box<dyn HostFunction> {
    fn info(&self) -> &HostInfo {
        (**self).info()
    }

    fn config_read(&mut self, offset: u16, data: &mut [u8]) -> Result<(), HostError> {
        (**self).config_read(offset, data)
    }

    fn config_read_all(&mut self, data: &mut [u8]) -> Result<(), HostError> {
        (**self).config_read_all(data)
    }

    fn config_write(&mut self, offset: u16, data: &[u8]) -> Result<(), HostError> {
        (**self).config_write(offset, data)
    }

    fn region_read(
        &mut self,
        region: Region,
        offset: u64,
        data: &mut [u8],
    ) -> Result<(), HostError> {
        (**self).region_read(region, offset, data)
    }

    fn region_write(&mut self, region: Region, offset: u64, data: &[u8]) -> Result<(), HostError> {
        (**self).region_write(region, offset, data)
    }

    fn region_read_all(
        &mut self,
        region: Region,
        offset: u64,
        data: &mut [u8],
    ) -> Result<(), HostError> {
        (**self).region_read_all(region, offset, data)
    }

    fn region_write_all(
        &mut self,
        region: Region,
        offset: u64,
        data: &[u8],
    ) -> Result<(), HostError> {
        (**self).region_write_all(region, offset, data)
    }

    fn map(&mut self, bar: u8, area: Range<u64>, gpa: Gpa) -> Result<(), HostError> {
        (**self).map(bar, area, gpa)
    }

    fn unmap(&mut self, bar: u8, area: Range<u64>) -> Result<(), HostError> {
        (**self).unmap(bar, area)
    }

    fn enable_interrupts(&mut self, kind: InterruptKind, vectors: u16) -> Result<u16, HostError> {
        (**self).enable_interrupts(kind, vectors)
    }

    fn disable_interrupts(&mut self) -> Result<(), HostError> {
        (**self).disable_interrupts()
    }

    fn connect(&mut self, vector: u16, message: MsiMessage) -> Result<(), HostError> {
        (**self).connect(vector, message)
    }

    fn disconnect(&mut self, vector: u16) -> Result<(), HostError> {
        (**self).disconnect(vector)
    }

    fn restore_vectors(&mut self) -> Result<(), HostError> {
        (**self).restore_vectors()
    }

    fn pending(&mut self, vector: u16) -> bool {
        (**self).pending(vector)
    }

    fn reset(&mut self) -> Result<(), HostError> {
        (**self).reset()
    }

    fn was_reset(&mut self) {
        (**self).was_reset();
    }
}
