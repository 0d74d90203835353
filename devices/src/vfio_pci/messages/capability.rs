// SPDX-License-Identifier: Apache-2.0 OR BSD-3-Clause

//! What a capability for messages is to the function that has it.

use std::fmt;

use pci_config::InterruptKind;

use crate::pci::access::DwordWrite;
use crate::pci::{Bars, MsiMessage, Placement};

use super::super::host::HostInfo;

/// A capability as the guest programs it; the device's own is programmed by the host.
pub(in crate::vfio_pci) trait MessageCapability: fmt::Debug + Send {
    /// The kind.
    fn kind(&self) -> InterruptKind;

    /// Whether the guest is shown it.
    fn is_offered(&self) -> bool;

    /// The guest is shown it where the device has its capability with this `header`, the first dword.
    fn shown(&mut self, _header: u32) {}

    /// Whether the guest has turned it on.
    fn is_enabled(&self) -> bool;

    /// Vectors that the guest can use while it is on.
    fn vectors(&self) -> u16;

    /// What `vector` sends when it is raised now; `None` while it is masked or the kind is off.
    fn message(&self, vector: u16) -> Option<MsiMessage>;

    /// Bytes of its registers that are answered here, from the capability's start on, a multiple of 4.
    fn length(&self) -> u16;

    /// The dword at `register`, an offset in the capability; ID and next pointer read as 0. `pending` says whether a vector
    /// is.
    fn read(&self, register: u16, pending: &mut dyn FnMut(u16) -> bool) -> u32;

    /// Writes the dword of the capability that `write`, whose offset counts from the capability's start, lies in.
    fn write(&mut self, write: DwordWrite) -> Written;

    /// Back to power-on.
    fn reset(&mut self);

    /// Its structures in BARs, which the guest must not reach directly, whether or not it is offered.
    fn structures(&self) -> &[Structure] {
        &[]
    }

    /// Reads its table at byte `offset`. What is not there reads as all-ones.
    fn read_table(&self, _offset: u64, data: &mut [u8]) {
        data.fill(0xff);
    }

    /// Writes its table at byte `offset`; returns the vector that this belongs to.
    fn write_table(&mut self, _offset: u64, _data: &[u8]) -> Option<u16> {
        None
    }
}

/// What a write to a capability means.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(in crate::vfio_pci) enum Written {
    /// The guest programs it.
    Changed,
    /// The guest restores it, as after a reset of the device's own, which may have turned it off: then `enable`, a bit of
    /// Message Control, is clear in the device.
    Restored { enable: u16 },
}

/// A structure in a BAR.
#[derive(Clone, Debug, PartialEq, Eq)]
pub(in crate::vfio_pci) struct Structure {
    /// Where.
    pub place: Placement,
    /// What it is.
    pub part: Part,
}

/// The structures that there are.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(in crate::vfio_pci) enum Part {
    /// Messages and masks of the vectors.
    Table,
    /// A bit for each vector.
    Pending,
}

/// What is known of a device when its capabilities are looked for.
#[derive(Clone, Copy, Debug)]
pub(in crate::vfio_pci) struct Device<'a> {
    pub info: &'a HostInfo,
    /// Its config space, as dwords.
    pub config: &'a [u32],
    /// The BARs that the guest gets.
    pub bars: &'a Bars,
}

/// The capability, if the device has it.
pub(in crate::vfio_pci) type Found = Option<Box<dyn MessageCapability>>;
