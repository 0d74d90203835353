// SPDX-License-Identifier: Apache-2.0 OR BSD-3-Clause

//! The walk of the two lists of capabilities.

use crate::read::ConfigRead;
use crate::regs::{
    CAPABILITIES, CONFIG_SIZE, CONVENTIONAL_CONFIG_SIZE, EXTENDED_CAPABILITIES, HEADER_END, STATUS,
    STATUS_CAPABILITIES,
};

/// The most capabilities that the standard list has room for: one in each dword behind the header
/// (drivers/pci/pci.h `PCI_FIND_CAP_TTL`).
pub const MAX_CAPABILITIES: usize = ((CONVENTIONAL_CONFIG_SIZE - HEADER_END) / 4) as usize;
/// The most that the extended list has room for.
pub const MAX_EXTENDED_CAPABILITIES: usize = ((CONFIG_SIZE - EXTENDED_CAPABILITIES) / 4) as usize;

/// One capability in a list.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Capability {
    /// Capability ID: 8 bits in the standard list, 16 in the extended one.
    pub id: u16,
    /// Version, in the extended list; else 0.
    pub version: u8,
    /// Offset in config space, a multiple of 4.
    pub offset: u16,
}

impl Capability {
    /// The first two bytes in the standard list, with `next` as the offset of the next capability; 0 ends the list
    /// (PCI Local Bus Specification 3.0, section 6.7).
    #[must_use]
    pub const fn standard_header(self, next: u16) -> u16 {
        self.id & 0xff | next << 8
    }

    /// The first four bytes in the extended list, with `next` as the offset of the next capability; 0 ends the list
    /// (PCI Express Base Specification 6.0, section 7.6.3).
    #[must_use]
    pub const fn extended_header(self, next: u16) -> u32 {
        self.id as u32 | (self.version as u32 & 0xf) << 16 | (next as u32) << 20
    }
}

/// The capabilities of the standard list, in its order (PCI Local Bus Specification 3.0, section 6.7; drivers/pci/pci.c
/// `pci_find_capability`).
///
/// The list exists if STATUS has its bit. Pointers are to multiples of 4: their low two bits are
/// reserved and not looked at. The list ends with a pointer into the header, which 0 is; at a
/// capability with the ID 0xff, as reads give where nothing responds; and where it comes back to a
/// capability. Capabilities of the same ID are all found, and those with the ID 0, which have no
/// registers, too.
pub fn capabilities<R: ConfigRead>(config: R) -> Capabilities<R> {
    Capabilities::new(config, List::Standard)
}

/// The capabilities of the extended list, in its order (PCI Express Base Specification 6.0, section 7.6;
/// drivers/pci/pci.c `pci_find_next_ext_capability`).
///
/// The list begins at 0x100 and continues as in [`capabilities`], except for its end: a pointer to
/// what is in front of 0x100, and a header of zeros or ones only. Those with the ID 0 are left out:
/// they only hold a place in the list, as where it begins with one that is hidden.
pub fn extended_capabilities<R: ConfigRead>(config: R) -> Capabilities<R> {
    Capabilities::new(config, List::Extended)
}

/// Offset of the first capability with this ID in the standard list. Nothing is read behind it.
///
/// # Errors
/// The first read that fails.
pub fn find_capability<R: ConfigRead>(config: R, id: u8) -> Result<Option<u16>, R::Error> {
    find(capabilities(config), id.into())
}

/// Offset of the first capability with this ID in the extended list. Nothing is read behind it.
///
/// # Errors
/// The first read that fails.
pub fn find_extended_capability<R: ConfigRead>(
    config: R,
    id: u16,
) -> Result<Option<u16>, R::Error> {
    find(extended_capabilities(config), id)
}

fn find<R: ConfigRead>(list: Capabilities<R>, id: u16) -> Result<Option<u16>, R::Error> {
    for capability in list {
        let Capability {
            id: found, offset, ..
        } = capability?;
        if found == id {
            return Ok(Some(offset));
        }
    }
    Ok(None)
}

/// Whether `config` is of a function that has capabilities, but ends in front of them: without CAP_SYS_ADMIN, sysfs
/// shows the first 64 bytes (Linux drivers/pci/pci-sysfs.c `pci_read_config`). They seem not to be there then.
#[must_use]
pub fn hides_capabilities(mut config: &[u8]) -> bool {
    let Ok(status) = config.read_u16(STATUS);
    config.len() <= usize::from(HEADER_END) && status & STATUS_CAPABILITIES != 0
}

/// A walk of a list of capabilities, see [`capabilities`] and [`extended_capabilities`]. A read that fails is its last
/// item.
#[derive(Clone, Debug)]
pub struct Capabilities<R> {
    config: R,
    list: List,
    place: Place,
    visited: Visited,
}

#[derive(Clone, Copy, Debug, PartialEq, Eq)]
enum List {
    Standard,
    Extended,
}

/// Where a walk continues.
#[derive(Clone, Copy, Debug)]
enum Place {
    First,
    At(u16),
    End,
}

impl<R: ConfigRead> Capabilities<R> {
    fn new(config: R, list: List) -> Self {
        Self {
            config,
            list,
            place: Place::First,
            visited: Visited::default(),
        }
    }

    /// The offset of the first capability, as stored there.
    fn first(&mut self) -> Result<Option<u16>, R::Error> {
        if self.list == List::Extended {
            return Ok(Some(EXTENDED_CAPABILITIES));
        }
        if self.config.read_u16(STATUS)? & STATUS_CAPABILITIES == 0 {
            return Ok(None);
        }
        Ok(Some(self.config.read_u16(CAPABILITIES)? & 0xff))
    }

    /// The capability at `offset` and the pointer to the next one; `None` if it is none.
    fn header(&mut self, offset: u16) -> Result<Option<(Capability, u16)>, R::Error> {
        let (id, version, next) = match self.list {
            List::Standard => {
                let [id, next] = self.config.read_u16(offset)?.to_le_bytes();
                if id == 0xff {
                    return Ok(None);
                }
                (id.into(), 0, next.into())
            }
            List::Extended => {
                let header = self.config.read_u32(offset)?;
                if header == 0 || header == u32::MAX {
                    return Ok(None);
                }
                let [id_low, id_high, version, last] = header.to_le_bytes();
                let next = u16::from_le_bytes([version, last]) >> 4;
                (u16::from_le_bytes([id_low, id_high]), version & 0xf, next)
            }
        };
        let capability = Capability {
            id,
            version,
            offset,
        };
        Ok(Some((capability, next)))
    }

    /// The next capability. After a failure nothing follows.
    fn advance(&mut self) -> Result<Option<Capability>, R::Error> {
        loop {
            let pointer = match core::mem::replace(&mut self.place, Place::End) {
                Place::First => self.first()?,
                Place::At(pointer) => Some(pointer),
                Place::End => None,
            };
            let Some(offset) = pointer.map(|pointer| pointer & !3) else {
                return Ok(None);
            };
            if !self.list.contains(offset) || !self.visited.insert(offset) {
                return Ok(None);
            }
            let Some((capability, next)) = self.header(offset)? else {
                return Ok(None);
            };
            self.place = Place::At(next);
            if self.list == List::Standard || capability.id != 0 {
                return Ok(Some(capability));
            }
        }
    }
}

impl<R: ConfigRead> Iterator for Capabilities<R> {
    type Item = Result<Capability, R::Error>;

    fn next(&mut self) -> Option<Self::Item> {
        self.advance().transpose()
    }
}

impl<R: ConfigRead> core::iter::FusedIterator for Capabilities<R> {}

impl List {
    /// Whether a capability of the list can begin at `offset`.
    fn contains(self, offset: u16) -> bool {
        match self {
            Self::Standard => (HEADER_END..CONVENTIONAL_CONFIG_SIZE).contains(&offset),
            Self::Extended => (EXTENDED_CAPABILITIES..CONFIG_SIZE).contains(&offset),
        }
    }
}

/// The dwords of config space in which a capability began, one bit each.
#[derive(Clone, Copy, Debug, Default)]
struct Visited([u64; 16]);

impl Visited {
    /// False if `offset` is in it already, or outside of config space.
    fn insert(&mut self, offset: u16) -> bool {
        let dword = offset / 4;
        let Some(word) = self.0.get_mut(usize::from(dword / 64)) else {
            return false;
        };
        let bit = 1 << (dword % 64);
        let is_new = *word & bit == 0;
        *word |= bit;
        is_new
    }
}

#[cfg(test)]
mod tests;
