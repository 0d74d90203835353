// SPDX-License-Identifier: Apache-2.0 OR BSD-3-Clause

//! What a base address register decodes.

use crate::regs::{
    BAR_KIND, BAR_KIND_IO, BAR_KIND_MEMORY_32, BAR_KIND_MEMORY_64, BAR_PREFETCHABLE,
};

/// What a base address register decodes (PCI Local Bus Specification 3.0, section 6.2.5.1).
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum BarKind {
    /// I/O ports.
    Io,
    /// Memory that must lie below 4 GiB.
    Memory32 {
        /// Reads have no side effects and writes may be merged.
        prefetchable: bool,
    },
    /// Memory anywhere. Takes two registers.
    Memory64 {
        /// Reads have no side effects and writes may be merged.
        prefetchable: bool,
    },
}

impl BarKind {
    /// The kind that the low bits of a BAR name. The obsolete "below 1 MiB" and what is reserved are taken as 32-bit
    /// (drivers/pci/probe.c `decode_bar`).
    #[must_use]
    pub const fn from_register(value: u32) -> Self {
        let prefetchable = value & BAR_PREFETCHABLE != 0;
        match value & BAR_KIND {
            BAR_KIND_MEMORY_64 => Self::Memory64 { prefetchable },
            bits if bits & BAR_KIND_IO != 0 => Self::Io,
            _ => Self::Memory32 { prefetchable },
        }
    }

    /// The low bits of a BAR of this kind.
    #[must_use]
    pub const fn flags(self) -> u32 {
        match self {
            Self::Io => BAR_KIND_IO,
            Self::Memory32 { prefetchable: true } => BAR_KIND_MEMORY_32 | BAR_PREFETCHABLE,
            Self::Memory32 { .. } => BAR_KIND_MEMORY_32,
            Self::Memory64 { prefetchable: true } => BAR_KIND_MEMORY_64 | BAR_PREFETCHABLE,
            Self::Memory64 { .. } => BAR_KIND_MEMORY_64,
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn the_low_bits_name_the_kind() {
        for (low, kind) in [
            (0b0001, BarKind::Io),
            (0b0011, BarKind::Io),
            (0b1101, BarKind::Io),
            (0b0000, memory_32(false)),
            (0b1000, memory_32(true)),
            (0b0010, memory_32(false)),
            (0b0110, memory_32(false)),
            (0b0100, memory_64(false)),
            (0b1100, memory_64(true)),
        ] {
            assert_eq!(BarKind::from_register(0xfe00_0000 | low), kind, "{low:#b}");
        }
    }

    #[test]
    fn the_flags_are_read_back() {
        let kinds = [false, true].map(|bit| [memory_32(bit), memory_64(bit)]);
        for kind in kinds.into_iter().flatten().chain([BarKind::Io]) {
            assert_eq!(BarKind::from_register(kind.flags()), kind);
        }
    }

    const fn memory_32(prefetchable: bool) -> BarKind {
        BarKind::Memory32 { prefetchable }
    }

    const fn memory_64(prefetchable: bool) -> BarKind {
        BarKind::Memory64 { prefetchable }
    }
}
