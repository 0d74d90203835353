// SPDX-License-Identifier: Apache-2.0 OR BSD-3-Clause

//! What the guest sees of each capability, and why. `docs/reference/config-space.md` shows these tables.

use pci_config::regs::{
    CAP_AF, CAP_EXPRESS, CAP_MSI, CAP_MSIX, CAP_PM, CAP_VENDOR, EXP_DEVICE_CONTROL, PM_CONTROL,
};

/// How the guest's view of a capability comes about.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(super) enum Access {
    /// Taken out of the list.
    Hidden,
    /// Reads go to the device; writes are dropped.
    ReadOnly,
    /// Reads and writes go to the device.
    Raw,
    /// Reads and writes go to the device as far as the listed registers allow; what is not listed
    /// reads as 0.
    Registers(&'static [Register]),
    /// Kept by the monitor.
    Emulated,
}

impl Access {
    /// The word that the documentation and the log use.
    pub(super) fn word(self) -> &'static str {
        match self {
            Self::Hidden => "hidden",
            Self::ReadOnly => "read-only",
            Self::Raw => "passed",
            Self::Registers(_) => "filtered",
            Self::Emulated => "emulated",
        }
    }
}

/// Bits of one dword of a capability that the device answers.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(super) struct Register {
    /// Offset in the capability, a multiple of 4.
    pub offset: u16,
    /// Bits read from the device.
    pub read: u32,
    /// Bits whose writes reach the device.
    pub write: u32,
}

/// Location of a capability's length.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(super) enum Length {
    /// Always as many bytes.
    Fixed(u16),
    /// In the byte at offset 2.
    Byte2,
    /// In bits 31:20 of the dword at offset 4.
    Bits20,
    /// By MSI's Message Control.
    Msi,
    /// By the version in the PCI Express Capabilities register.
    Express,
}

/// The treatment of one capability.
#[derive(Clone, Copy, Debug)]
pub(super) struct Rule {
    /// Capability ID.
    pub id: u16,
    /// The specification's name.
    pub name: &'static str,
    /// Bytes that belong to it. Where it is hidden, as many as the specification lets it have; those
    /// behind the start of the next capability are not counted.
    pub length: Length,
    /// What becomes of it.
    pub access: Access,
    /// Why.
    pub reason: &'static str,
}

const fn rule(
    id: u16,
    name: &'static str,
    length: u16,
    access: Access,
    reason: &'static str,
) -> Rule {
    let length = Length::Fixed(length);
    Rule {
        id,
        name,
        length,
        access,
        reason,
    }
}

/// A capability that the guest does not see, of at most `length` bytes.
const fn hidden(id: u16, name: &'static str, length: u16, reason: &'static str) -> Rule {
    rule(id, name, length, Access::Hidden, reason)
}

const fn register(offset: u16, read: u32, write: u32) -> Register {
    Register {
        offset,
        read,
        write,
    }
}

const ALL: u32 = u32::MAX;

/// Bytes of a capability whose length the specification leaves open: up to the next.
const ALL_THERE_IS: u16 = u16::MAX;
/// Bytes of a Virtual Channel capability with eight channels and an arbitration table of 64 bytes.
const VIRTUAL_CHANNEL: u16 = 0xb0;

/// PMC without the PME# sources; of PMCSR the power state and No_Soft_Reset.
const PM: [Register; 2] = [
    register(0, 0x07ff_0000, 0),
    register(PM_CONTROL, 0x0000_000b, 0),
];
/// Address and flag are one register; both halves of the handshake are the device's.
const VPD: [Register; 2] = [register(0, 0xffff_0000, 0xffff_0000), register(4, ALL, ALL)];
/// Command without the reserved bits; status.
const PCIX: [Register; 2] = [register(0, 0xffff_0000, 0x007f_0000), register(4, ALL, 0)];
/// Device capabilities, control and status; device capabilities and control 2. The flags word is
/// shadowed and the link registers read as 0: see `config_space`.
const EXPRESS: [Register; 4] = [
    // Without extended tags and phantom functions, whose use the path to memory limits.
    register(4, !0x38, 0),
    register(EXP_DEVICE_CONTROL, 0xffff_74ff, 0x0000_70ff),
    // Without LTR and OBFF, which need a switch or root port that speaks them.
    register(0x24, !0x000c_0800, 0),
    // Writable: completion timeout, AtomicOp requests, ID-based ordering.
    register(0x28, 0xffff_9bff, 0x0000_035f),
];
const AF: [Register; 1] = [register(4, 0x0000_ff00, 0)];
/// Masks, severity and the write-1-to-clear status registers; header log to read.
const AER: [Register; 10] = [
    register(0x04, ALL, ALL),
    register(0x08, ALL, ALL),
    register(0x0c, ALL, ALL),
    register(0x10, ALL, ALL),
    register(0x14, ALL, ALL),
    register(0x18, ALL, 0),
    register(0x1c, ALL, 0),
    register(0x20, ALL, 0),
    register(0x24, ALL, 0),
    register(0x28, ALL, 0),
];
const POWER_BUDGET: [Register; 3] = [
    register(4, 0x0000_00ff, 0x0000_00ff),
    register(8, ALL, 0),
    register(12, ALL, 0),
];

/// Capabilities in the first 256 bytes. An ID that is not here is hidden.
pub(super) const STANDARD: [Rule; 20] = [
    rule(
        CAP_PM as u16,
        "Power Management",
        8,
        Access::Registers(&PM),
        "the monitor changes the state and unmaps BARs outside D0; PME# is not forwarded to the \
         guest",
    ),
    hidden(0x02, "AGP", 12, "AGP belongs to the chipset"),
    rule(
        0x03,
        "Vital Product Data",
        8,
        Access::Registers(&VPD),
        "drivers read it; the kernel runs the handshake",
    ),
    hidden(0x04, "Slot Identification", 4, "bridges only"),
    Rule {
        id: CAP_MSI as u16,
        name: "MSI",
        length: Length::Msi,
        access: Access::Emulated,
        reason: "the host programs the real registers; the guest sees the number of vectors that \
                 the host grants",
    },
    hidden(
        0x06,
        "CompactPCI Hot Swap",
        4,
        "the slot belongs to the host",
    ),
    rule(
        0x07,
        "PCI-X",
        8,
        Access::Registers(&PCIX),
        "drivers tune performance in the command register",
    ),
    hidden(0x08, "HyperTransport", 0x1c, "part of the host's fabric"),
    Rule {
        id: CAP_VENDOR as u16,
        name: "Vendor Specific",
        length: Length::Byte2,
        access: Access::Raw,
        reason: "vendor-defined: only its driver can interpret it",
    },
    hidden(
        0x0a,
        "Debug Port",
        4,
        "would expose a BAR's address by a second path",
    ),
    hidden(
        0x0b,
        "CompactPCI Resource Control",
        ALL_THERE_IS,
        "belongs to the host's chassis",
    ),
    hidden(0x0c, "Hot-Plug Controller", 8, "bridges only"),
    rule(
        0x0d,
        "Subsystem Vendor ID",
        8,
        Access::ReadOnly,
        "an identification",
    ),
    hidden(0x0e, "AGP 8x", ALL_THERE_IS, "AGP belongs to the chipset"),
    hidden(0x0f, "Secure Device", 0x18, "belongs to the host's IOMMU"),
    Rule {
        id: CAP_EXPRESS as u16,
        name: "PCI Express",
        length: Length::Express,
        access: Access::Registers(&EXPRESS),
        reason: "shown as an integrated endpoint without a link; the host controls No-Snoop, tags \
                 and link; the monitor performs function resets",
    },
    rule(
        CAP_MSIX as u16,
        "MSI-X",
        12,
        Access::Emulated,
        "the host programs the real table; the guest sees the number of vectors that the host \
         grants",
    ),
    rule(
        0x12,
        "SATA Index-Data",
        8,
        Access::ReadOnly,
        "locates registers that are accessible in a BAR as well",
    ),
    rule(
        CAP_AF as u16,
        "Advanced Features",
        8,
        Access::Registers(&AF),
        "the monitor performs function resets",
    ),
    hidden(
        0x14,
        "Enhanced Allocation",
        ALL_THERE_IS,
        "places regions outside of the BARs that the monitor handles",
    ),
];

/// Capabilities in extended config space. An ID that is not here is hidden.
pub(super) const EXTENDED: [Rule; 35] = [
    rule(
        0x01,
        "Advanced Error Reporting",
        0x2c,
        Access::Registers(&AER),
        "drivers read and clear their errors; ECRC depends on the root port and stays as it is",
    ),
    hidden(
        0x02,
        "Virtual Channel",
        VIRTUAL_CHANNEL,
        "must match the upstream port, which the host controls",
    ),
    rule(
        0x03,
        "Device Serial Number",
        12,
        Access::ReadOnly,
        "an identification",
    ),
    rule(
        0x04,
        "Power Budgeting",
        16,
        Access::Registers(&POWER_BUDGET),
        "the select register only chooses what is read",
    ),
    hidden(
        0x05,
        "Root Complex Link Declaration",
        ALL_THERE_IS,
        "describes the host's root complex",
    ),
    hidden(
        0x06,
        "Root Complex Internal Link Control",
        12,
        "describes the host's root complex",
    ),
    hidden(
        0x07,
        "Root Complex Event Collector",
        12,
        "describes the host's root complex",
    ),
    hidden(
        0x08,
        "Multi-Function Virtual Channel",
        VIRTUAL_CHANNEL,
        "must match the upstream port, which the host controls",
    ),
    hidden(
        0x09,
        "Virtual Channel (with MFVC)",
        VIRTUAL_CHANNEL,
        "must match the upstream port, which the host controls",
    ),
    hidden(
        0x0a,
        "RCRB Header",
        0x14,
        "describes the host's root complex",
    ),
    Rule {
        id: 0x0b,
        name: "Vendor Specific",
        length: Length::Bits20,
        access: Access::Raw,
        reason: "vendor-defined: only its driver can interpret it",
    },
    hidden(
        0x0c,
        "Configuration Access Correlation",
        ALL_THERE_IS,
        "belongs to the host's trusted config access",
    ),
    hidden(
        0x0d,
        "Access Control Services",
        0x28,
        "decides on peer-to-peer routing for the whole host",
    ),
    hidden(
        0x0e,
        "Alternative Routing-ID",
        8,
        "the guest's bus uses conventional function numbers",
    ),
    hidden(
        0x0f,
        "Address Translation Services",
        8,
        "no IOMMU translates, and translated requests would bypass one",
    ),
    hidden(
        0x10,
        "Single Root I/O Virtualization",
        0x40,
        "virtual functions would appear on the host's bus, not the guest's",
    ),
    hidden(
        0x11,
        "Multi-Root I/O Virtualization",
        ALL_THERE_IS,
        "belongs to the host's fabric",
    ),
    hidden(
        0x12,
        "Multicast",
        0x30,
        "routes writes to other devices of the host",
    ),
    hidden(0x13, "Page Request", 0x10, "no IOMMU answers page requests"),
    hidden(
        0x15,
        "Resizable BAR",
        0x34,
        "BARs keep their host addresses and cannot be resized",
    ),
    hidden(
        0x16,
        "Dynamic Power Allocation",
        0x30,
        "the host controls the power budget",
    ),
    hidden(
        0x17,
        "TPH Requester",
        0x8c,
        "steering tags refer to the host's processors",
    ),
    hidden(
        0x18,
        "Latency Tolerance Reporting",
        8,
        "the host chose it for its own power states",
    ),
    hidden(
        0x19,
        "Secondary PCI Express",
        0x4c,
        "the host controls the link",
    ),
    hidden(
        0x1a,
        "Protocol Multiplexing",
        ALL_THERE_IS,
        "the host controls the link",
    ),
    hidden(0x1b, "Process Address Space ID", 8, "no IOMMU uses it"),
    hidden(0x1d, "Downstream Port Containment", 0x5c, "ports only"),
    hidden(0x1e, "L1 PM Substates", 0x14, "the host controls the link"),
    hidden(
        0x1f,
        "Precision Time Measurement",
        12,
        "requires support in the upstream ports",
    ),
    Rule {
        id: 0x23,
        name: "Designated Vendor Specific",
        length: Length::Bits20,
        access: Access::Raw,
        reason: "vendor-defined: only its driver can interpret it",
    },
    hidden(0x24, "VF Resizable BAR", 0x34, "part of SR-IOV"),
    hidden(0x25, "Data Link Feature", 12, "the host controls the link"),
    hidden(
        0x26,
        "Physical Layer 16.0 GT/s",
        0x40,
        "the host controls the link",
    ),
    hidden(0x27, "Lane Margining", 0x88, "the host controls the link"),
    hidden(
        0x2e,
        "Data Object Exchange",
        0x18,
        "a mailbox that VFIO does not let the guest write",
    ),
];

/// The rule for a standard capability.
pub(super) fn standard(id: u16) -> Option<&'static Rule> {
    STANDARD.iter().find(|rule| rule.id == id)
}

/// The rule for an extended capability.
pub(super) fn extended(id: u16) -> Option<&'static Rule> {
    EXTENDED.iter().find(|rule| rule.id == id)
}

#[cfg(test)]
mod tests;
