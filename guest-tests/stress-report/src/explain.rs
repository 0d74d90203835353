// SPDX-License-Identifier: Apache-2.0 OR BSD-3-Clause

//! What each kind of error means on a machine without an IOMMU.

use stress_format::FindingKind;

/// A kind of error in plain words.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Explanation {
    /// A few words.
    pub title: &'static str,
    /// What has happened.
    pub meaning: &'static str,
    /// Where to look for the cause.
    pub look_at: &'static str,
}

/// For [`Reason::RefusedDma`](crate::Reason::RefusedDma).
pub const REFUSED_DMA: Explanation = Explanation {
    title: "Refused DMA",
    meaning: "The guest's driver gave the device an address outside the guest's RAM. Only the \
              software engine can refuse it. A real device on a machine without an IOMMU would \
              have read or overwritten memory of the host there.",
    look_at: "The driver's DMA addresses: a virtual address instead of a physical one, memory \
              below 1 MiB (not where the device sees it), an address cut to 32 bits, or a length \
              that runs past the end of a piece of RAM.",
};

/// What `kind` means and where to look.
#[must_use]
pub const fn explain(kind: FindingKind) -> Explanation {
    let (title, meaning, look_at) = match kind {
        FindingKind::WrongExtent => (
            "Data in the wrong piece of RAM",
            "The data is intact but lies in another piece of the guest's RAM. A device without an \
             IOMMU uses host-physical addresses, so at least one piece of guest RAM is not at the \
             host-physical address that the guest believes.",
            "The memory layout: compare guest and host address of each extent, and what the monitor \
             registered with KVM. The two extents concerned are probably swapped.",
        ),
        FindingKind::Shifted => (
            "Data a little before or behind its place",
            "The data is intact but begins at the wrong byte. The address on the bus is off by a \
             constant.",
            "The computation of bus addresses: an offset added twice or left out, a page offset \
             lost, a PRP or scatter-gather entry that starts at the wrong byte.",
        ),
        FindingKind::BitFlip => (
            "Single bits differ",
            "The data arrived where it should, with some bits changed. Addresses are right; the \
             contents suffered on the way or in memory.",
            "The memory (ECC errors in the host's log), the link (PCIe AER counters, cables, \
             risers), the device itself.",
        ),
        FindingKind::Mismatch => (
            "Wrong data",
            "The data is not what was sent, and resembles nothing else the guest knows. Nothing \
             may have been written at all, or something else owns the memory.",
            "Whether bus mastering is on, whether the transfer took place at all, whether a \
             second device or the host uses the same memory, and the order of completion and \
             data.",
        ),
        FindingKind::GuardHit => (
            "Memory around the buffer changed",
            "A transfer wrote before or behind its buffer. Without an IOMMU nothing stops it; \
             next to the guest's RAM lies memory of the host.",
            "The length or the address given to the device: rounding up to its unit, length in \
             the wrong unit, one PRP entry too many.",
        ),
        FindingKind::LostInterrupt => (
            "An interrupt did not arrive",
            "The transfer ended, its data is there, but the guest was not told.",
            "Interrupt routing and masking: the MSI address and data, a vector left masked, a \
             pending bit not delivered on unmasking, a level-triggered line not asserted again.",
        ),
        FindingKind::DeviceError => (
            "The device reported an error",
            "The device refused or aborted the transfer itself.",
            "The guest's words, the device's own status, and whether it could reach the \
             address at all (its DMA mask, bus mastering, PCIe errors).",
        ),
        FindingKind::Timeout => (
            "A transfer did not end",
            "The device neither finished nor failed. It may still write later, into memory that \
             is used for something else by then.",
            "Whether the device got the command (doorbell, memory decoding, bus mastering) and \
             could fetch it from memory, and whether the time limit fits the machine.",
        ),
    };
    Explanation {
        title,
        meaning,
        look_at,
    }
}
