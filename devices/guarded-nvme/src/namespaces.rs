// SPDX-License-Identifier: Apache-2.0 OR BSD-3-Clause

//! The namespaces that a guest sees: those without metadata and of the NVM command set.

use std::fmt;

use crate::spec::ALL_NAMESPACES;
use crate::spec::identify::{Format, NVM_COMMAND_SET, namespace};

/// Most namespaces that are kept; a device's others are hidden.
pub const MAX_NAMESPACES: usize = 1024;

/// Logical blocks that a guest can be given: 512 bytes to 64 KiB.
const BLOCK_SHIFTS: std::ops::RangeInclusive<u8> = 9..=16;

/// A namespace that a guest sees.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Namespace {
    /// Its identifier.
    pub nsid: u32,
    /// LBADS: a logical block has 2 to the power of this bytes.
    pub block_shift: u8,
}

/// Why a namespace is hidden.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum HiddenReason {
    /// Its format has metadata, of this number of bytes per block: lengths and MPTR would depend on it.
    Metadata(u16),
    /// It is of another I/O command set, whose opcodes mean something else.
    CommandSet(u8),
    /// Its blocks have 2 to the power of this bytes.
    BlockShift(u8),
    /// The device did not say what it is.
    Unreadable,
    /// The device has more than [`MAX_NAMESPACES`].
    TooMany,
}

impl fmt::Display for HiddenReason {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        match self {
            Self::Metadata(bytes) => write!(f, "{bytes} bytes of metadata per block"),
            Self::CommandSet(csi) => write!(f, "I/O command set {csi:#x}"),
            Self::BlockShift(shift) => write!(f, "blocks of 2^{shift} bytes"),
            Self::Unreadable => write!(f, "the controller does not identify it"),
            Self::TooMany => write!(f, "more than {MAX_NAMESPACES} namespaces"),
        }
    }
}

/// A namespace that a guest does not see.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct HiddenNamespace {
    /// Its identifier.
    pub nsid: u32,
    /// Why.
    pub reason: HiddenReason,
}

/// The active namespaces of a device, in order, as they were when it was asked.
#[derive(Clone, Debug, Default, PartialEq, Eq)]
pub struct Namespaces {
    shown: Vec<Namespace>,
    hidden: Vec<HiddenNamespace>,
}

impl Namespaces {
    /// Adds a namespace by what the device says of it: its Identify Namespace structure, and the command set that its
    /// descriptors name. Those that are not active are left out.
    pub fn add(&mut self, nsid: u32, structure: &[u8], command_set: u8) {
        if namespace::size(structure) == 0 {
            return;
        }
        match qualify(structure, command_set) {
            _ if self.shown.len() >= MAX_NAMESPACES => self.hide(nsid, HiddenReason::TooMany),
            Ok(block_shift) => self.insert(Namespace { nsid, block_shift }),
            Err(reason) => self.hide(nsid, reason),
        }
    }

    /// Adds a namespace that is hidden.
    pub fn hide(&mut self, nsid: u32, reason: HiddenReason) {
        if self.hidden.len() < MAX_NAMESPACES {
            self.hidden.push(HiddenNamespace { nsid, reason });
        }
    }

    fn insert(&mut self, namespace: Namespace) {
        if namespace.nsid == 0 || namespace.nsid == ALL_NAMESPACES {
            return;
        }
        let place = self
            .shown
            .binary_search_by_key(&namespace.nsid, |known| known.nsid);
        match place {
            Ok(place) => self.shown[place] = namespace,
            Err(place) => self.shown.insert(place, namespace),
        }
    }

    /// The namespace `nsid`, if the guest sees it.
    #[must_use]
    #[inline]
    pub fn get(&self, nsid: u32) -> Option<Namespace> {
        // Devices number them from 1 on.
        let usual = usize::try_from(nsid).ok()?.checked_sub(1)?;
        match self.shown.get(usual) {
            Some(found) if found.nsid == nsid => Some(*found),
            _ => self.search(nsid),
        }
    }

    #[cold]
    #[inline(never)]
    fn search(&self, nsid: u32) -> Option<Namespace> {
        let place = self
            .shown
            .binary_search_by_key(&nsid, |known| known.nsid)
            .ok()?;
        Some(self.shown[place])
    }

    /// Whether a command may name `nsid` where a namespace is optional: one that is shown, all, or none.
    #[must_use]
    pub fn allows(&self, nsid: u32) -> bool {
        nsid == 0 || nsid == ALL_NAMESPACES || self.get(nsid).is_some()
    }

    /// What the guest sees, in order.
    #[must_use]
    pub fn shown(&self) -> &[Namespace] {
        &self.shown
    }

    /// What it does not see, and why.
    #[must_use]
    pub fn hidden(&self) -> &[HiddenNamespace] {
        &self.hidden
    }
}

/// LBADS of a namespace that can be shown.
fn qualify(structure: &[u8], command_set: u8) -> Result<u8, HiddenReason> {
    let Format {
        metadata,
        block_shift,
    } = namespace::format(structure);
    if command_set != NVM_COMMAND_SET {
        return Err(HiddenReason::CommandSet(command_set));
    }
    if metadata != 0 {
        return Err(HiddenReason::Metadata(metadata));
    }
    if !BLOCK_SHIFTS.contains(&block_shift) {
        return Err(HiddenReason::BlockShift(block_shift));
    }
    Ok(block_shift)
}

#[cfg(test)]
mod tests {
    use super::*;

    fn structure(flbas: u8, format: [u8; 4]) -> Vec<u8> {
        let mut bytes = vec![0; 4096];
        bytes[0] = 1;
        bytes[25] = 63;
        bytes[26] = flbas;
        let index = usize::from(flbas & 0xf | flbas >> 1 & 0x30);
        bytes[128 + 4 * index..132 + 4 * index].copy_from_slice(&format);
        bytes
    }

    fn reason(structure: &[u8], command_set: u8) -> Option<HiddenReason> {
        let mut all = Namespaces::default();
        all.add(5, structure, command_set);
        assert_eq!(all.get(5).is_none(), all.hidden().len() == 1);
        all.hidden().first().map(|hidden| hidden.reason)
    }

    #[test]
    fn only_plain_namespaces_of_the_nvm_command_set_are_shown() {
        for flbas in [0, 1, 0xf, 0x21, 0x6f, 0x11] {
            assert_eq!(reason(&structure(flbas, [0, 0, 9, 0]), 0), None);
            assert_eq!(reason(&structure(flbas, [0, 0, 16, 0]), 0), None);
            let found = reason(&structure(flbas, [8, 0, 9, 0]), 0);
            assert_eq!(found, Some(HiddenReason::Metadata(8)));
            let found = reason(&structure(flbas, [0, 1, 9, 0]), 0);
            assert_eq!(found, Some(HiddenReason::Metadata(256)));
        }
        for shift in [0, 8, 17, 255] {
            let found = reason(&structure(0, [0, 0, shift, 0]), 0);
            assert_eq!(found, Some(HiddenReason::BlockShift(shift)));
        }
        let found = reason(&structure(0, [0, 0, 9, 0]), 2);
        assert_eq!(found, Some(HiddenReason::CommandSet(2)));
    }

    #[test]
    fn an_inactive_namespace_is_neither_shown_nor_hidden() {
        let mut all = Namespaces::default();
        all.add(1, &[0; 4096], 0);
        all.add(1, &[], 0);
        assert_eq!(all, Namespaces::default());
    }

    #[test]
    fn namespaces_are_found_in_any_order_and_their_number_is_limited() {
        let mut all = Namespaces::default();
        let plain = structure(0, [0, 0, 12, 0]);
        for nsid in [0, 7, 3, 5, 3, ALL_NAMESPACES] {
            all.add(nsid, &plain, 0);
        }
        let seen: Vec<u32> = all.shown().iter().map(|known| known.nsid).collect();
        assert_eq!(seen, [3, 5, 7]);
        assert!(all.allows(0) && all.allows(ALL_NAMESPACES) && all.allows(5) && !all.allows(4));
        for nsid in 10..3000 {
            all.add(nsid, &plain, 0);
        }
        assert_eq!(all.shown().len(), MAX_NAMESPACES);
        assert_eq!(all.hidden().len(), MAX_NAMESPACES);
    }
}
