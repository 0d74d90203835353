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
              below 1 MiB (not where the device sees it), an address truncated to 32 bits, or a \
              length that runs past the end of a piece of RAM.",
};

/// What `kind` means and where to look.
#[must_use]
pub const fn explain(kind: FindingKind) -> Explanation {
    match kind {
        FindingKind::WrongExtent => WRONG_EXTENT,
        FindingKind::Shifted => SHIFTED,
        FindingKind::BitFlip => BIT_FLIP,
        FindingKind::Mismatch => MISMATCH,
        FindingKind::GuardHit => GUARD_HIT,
        FindingKind::LostInterrupt => LOST_INTERRUPT,
        FindingKind::DeviceError => DEVICE_ERROR,
        FindingKind::Timeout => TIMEOUT,
    }
}

const WRONG_EXTENT: Explanation = Explanation {
    title: "Data in the wrong piece of RAM",
    meaning: "The data is intact but lies in another piece of the guest's RAM. A device without an \
             IOMMU uses host-physical addresses, so at least one piece of guest RAM is not at the \
             host-physical address that the guest assumes.",
    look_at: "The memory layout: compare guest and host address of each extent, and the memslots \
             that the monitor registered with KVM. The two extents concerned are probably swapped.",
};
const SHIFTED: Explanation = Explanation {
    title: "Data slightly before or after its place",
    meaning: "The data is intact but begins at the wrong byte. The address on the bus is off by a \
             constant.",
    look_at: "The computation of bus addresses: an offset added twice or omitted, a page offset \
             lost, a PRP or scatter-gather entry that starts at the wrong byte.",
};
const BIT_FLIP: Explanation = Explanation {
    title: "Single bits differ",
    meaning: "The data arrived where it should, with some bits changed. Addresses are right; the \
             contents suffered on the way or in memory.",
    look_at: "The memory (ECC errors in the host's log), the link (PCIe AER counters, cables, \
             risers), the device itself.",
};
const MISMATCH: Explanation = Explanation {
    title: "Wrong data",
    meaning: "The data is not what was sent, and resembles no other data of the guest. Perhaps \
             nothing was written, or something else owns the memory.",
    look_at: "Whether bus mastering is on, whether the transfer took place, whether a \
             second device or the host uses the same memory, and the order of completion and \
             data.",
};
const GUARD_HIT: Explanation = Explanation {
    title: "Memory around the buffer changed",
    meaning: "A transfer wrote before or behind its buffer. Without an IOMMU nothing stops it; \
             next to the guest's RAM lies memory of the host.",
    look_at: "The length or the address given to the device: rounding up to its unit, length in \
             the wrong unit, one PRP entry too many.",
};
const LOST_INTERRUPT: Explanation = Explanation {
    title: "An interrupt did not arrive",
    meaning: "The transfer ended and its data arrived, but the guest received no interrupt.",
    look_at: "Interrupt routing and masking: the MSI address and data, a vector left masked, a \
             pending bit not delivered on unmasking, a level-triggered line not asserted again.",
};
const DEVICE_ERROR: Explanation = Explanation {
    title: "The device reported an error",
    meaning: "The device refused or aborted the transfer itself.",
    look_at: "The guest's report, the device's own status, and whether it could reach the address \
             (its DMA mask, bus mastering, PCIe errors).",
};
const TIMEOUT: Explanation = Explanation {
    title: "A transfer did not end",
    meaning: "The device neither finished nor failed. It may still write later, to memory that is \
             used for something else by then.",
    look_at: "Whether the device got the command (doorbell, memory decoding, bus mastering) and \
             could fetch it from memory, and whether the time limit fits the machine.",
};
