// SPDX-License-Identifier: Apache-2.0 OR BSD-3-Clause

//! What an emulated device sees of memory.

use std::collections::{BTreeMap, VecDeque};
use std::fmt;
use std::sync::{Arc, Mutex, PoisonError, RwLock};

use address::{BusAddr, Hpa, Iova};
use vm_memory::{MmapRegion, VolatileMemory};

use crate::pinned::PinnedMap;

/// How many refusals are kept in full.
const KEPT_FAULTS: usize = 64;

/// An address that a device puts on the bus.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Hash)]
pub enum BusAddress {
    /// To be translated: what a device behind an IOMMU would use.
    Iova(Iova),
    /// Not to be translated: what a device without an IOMMU uses. The host bridge of this machine adds nothing.
    Bus(BusAddr),
}

impl fmt::Display for BusAddress {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        match self {
            Self::Iova(iova) => write!(f, "IOVA {iova}"),
            Self::Bus(address) => write!(f, "HPA {}", address.identity_hpa()),
        }
    }
}

/// Which way data goes.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Hash)]
pub enum Direction {
    /// From memory to the device.
    Read,
    /// From the device to memory.
    Write,
}

/// A transfer that was refused, as a whole: not a byte of it was moved.
#[derive(Clone, Copy, Debug, PartialEq, Eq, thiserror::Error)]
#[error("DMA {} of {len:#x} bytes at {address} refused: nothing is pinned at +{offset:#x}", match direction {
    Direction::Read => "read",
    Direction::Write => "write",
})]
pub struct DmaFault {
    /// Where the transfer was to begin.
    pub address: BusAddress,
    /// Its bytes.
    pub len: u64,
    /// Which way.
    pub direction: Direction,
    /// How many bytes after its beginning there is no memory.
    pub offset: u64,
}

/// What the backend and its ports have in common.
#[derive(Debug, Default)]
pub(crate) struct Shared {
    pub(crate) bus: RwLock<Bus>,
    faults: Mutex<Faults>,
}

/// The memory bus: the tables, and what they lead to.
#[derive(Debug, Default)]
pub(crate) struct Bus {
    /// IOVA to physical address.
    pub(crate) iovas: PinnedMap,
    /// Physical address back to IOVA, by the same type: there is memory at a physical address
    /// only while it is pinned.
    pub(crate) hpas: PinnedMap,
    /// The memory of each pin, by its first IOVA.
    pub(crate) regions: BTreeMap<Iova, MmapRegion>,
}

#[derive(Debug, Default)]
struct Faults {
    count: u64,
    last: VecDeque<DmaFault>,
}

/// A piece of a transfer: `len` bytes at `offset` into the memory of the pin at `pin`.
struct Piece {
    pin: Iova,
    offset: usize,
    len: usize,
}

impl Bus {
    /// Physical address of a bus address, and the contiguous bytes there.
    fn physical(&self, address: BusAddress, offset: u64, len: u64) -> Option<(Hpa, u64)> {
        match address {
            BusAddress::Bus(address) => Some((address.identity_hpa().checked_add(offset)?, len)),
            BusAddress::Iova(iova) => {
                let run = self.iovas.translate(iova.checked_add(offset)?, len).ok()?;
                Some((run.hpa, run.len))
            }
        }
    }

    /// The first piece of `len` bytes at `offset` from `address`.
    fn piece(&self, address: BusAddress, offset: u64, len: u64) -> Option<Piece> {
        let (hpa, len) = self.physical(address, offset, len)?;
        let run = self.hpas.translate(Iova(hpa.0), len).ok()?;
        let iova = Iova(run.hpa.0);
        let (pin, region) = self.regions.range(..=iova).next_back()?;
        let offset = usize::try_from(iova - *pin).ok()?;
        let rest = region.size().checked_sub(offset)?;
        let len = usize::try_from(run.len).map_or(rest, |len| len.min(rest));
        Some(Piece {
            pin: *pin,
            offset,
            len,
        })
    }

    /// All pieces of a transfer, or how far it could go.
    fn pieces(&self, address: BusAddress, len: usize) -> Result<Vec<Piece>, usize> {
        let mut pieces = Vec::new();
        let mut done = 0;
        while done < len {
            let piece = self
                .piece(address, done as u64, (len - done) as u64)
                .filter(|piece| piece.len > 0)
                .ok_or(done)?;
            done += piece.len;
            pieces.push(piece);
        }
        Ok(pieces)
    }
}

/// A device's access to memory. Clones are the same device's or another's; all count together.
#[derive(Clone, Debug)]
pub struct DmaPort {
    shared: Arc<Shared>,
}

impl DmaPort {
    pub(crate) const fn new(shared: Arc<Shared>) -> Self {
        Self { shared }
    }

    /// Reads memory into `data`. Nothing is read if part of it is not pinned.
    ///
    /// # Errors
    ///
    /// [`DmaFault`], which is also counted and kept.
    pub fn read(&self, address: BusAddress, data: &mut [u8]) -> Result<(), DmaFault> {
        self.transfer(
            address,
            data.len(),
            Direction::Read,
            |region, piece, done| {
                let slice = region.get_slice(piece.offset, piece.len).ok()?;
                slice.copy_to(data.get_mut(done..done + piece.len)?);
                Some(())
            },
        )
    }

    /// Writes `data` to memory. Nothing is written if part of it is not pinned.
    ///
    /// # Errors
    ///
    /// [`DmaFault`], which is also counted and kept.
    pub fn write(&self, address: BusAddress, data: &[u8]) -> Result<(), DmaFault> {
        self.transfer(
            address,
            data.len(),
            Direction::Write,
            |region, piece, done| {
                let slice = region.get_slice(piece.offset, piece.len).ok()?;
                slice.copy_from(data.get(done..done + piece.len)?);
                Some(())
            },
        )
    }

    /// How many transfers were refused so far.
    #[must_use]
    pub fn fault_count(&self) -> u64 {
        self.faults(|faults| faults.count)
    }

    /// The last refusals, the oldest first, at most 64.
    #[must_use]
    pub fn last_faults(&self) -> Vec<DmaFault> {
        self.faults(|faults| faults.last.iter().copied().collect())
    }

    /// Moves a transfer piece by piece, under the lock that unpinning takes: memory does not go
    /// away in the middle.
    fn transfer(
        &self,
        address: BusAddress,
        len: usize,
        direction: Direction,
        mut copy: impl FnMut(&MmapRegion, &Piece, usize) -> Option<()>,
    ) -> Result<(), DmaFault> {
        let bus = self
            .shared
            .bus
            .read()
            .unwrap_or_else(PoisonError::into_inner);
        let moved = bus.pieces(address, len).and_then(|pieces| {
            let mut done = 0;
            for piece in &pieces {
                let region = bus.regions.get(&piece.pin).ok_or(done)?;
                copy(region, piece, done).ok_or(done)?;
                done += piece.len;
            }
            Ok(())
        });
        moved.map_err(|offset| {
            let fault = DmaFault {
                address,
                len: len as u64,
                direction,
                offset: offset as u64,
            };
            self.faults(|faults| faults.add(fault));
            fault
        })
    }

    fn faults<T>(&self, f: impl FnOnce(&mut Faults) -> T) -> T {
        let faults = self.shared.faults.lock();
        f(&mut faults.unwrap_or_else(PoisonError::into_inner))
    }
}

impl Faults {
    fn add(&mut self, fault: DmaFault) {
        self.count += 1;
        if self.last.len() == KEPT_FAULTS {
            self.last.pop_front();
        }
        self.last.push_back(fault);
    }
}
