// SPDX-License-Identifier: Apache-2.0 OR BSD-3-Clause

//! Facts from a function's config space.

use pci_config::regs::{HEADER_END, HEADER_TYPE, HEADER_TYPE_LAYOUT};
use pci_config::{PerKind, hides_capabilities, interrupt_vectors};

/// Bytes that every caller can read.
const HEADER: usize = HEADER_END as usize;

/// Facts of a function's config space.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(crate) struct ConfigSpace {
    /// 0 for a device, 1 for a bridge, 2 for a CardBus bridge.
    pub header_type: u8,
    /// Vectors of each kind of interrupt.
    pub interrupts: PerKind<u16>,
    /// Whether the capabilities were not shown, so that no vectors of messages are known.
    pub hides_capabilities: bool,
}

/// Whether no device answers: all reads give ones (PCI Local Bus Specification 3.0, 6.1). The IDs alone do so for
/// virtual functions, too.
pub(crate) fn is_silent(bytes: &[u8]) -> bool {
    bytes
        .get(..HEADER)
        .is_some_and(|header| header.iter().all(|byte| *byte == 0xff))
}

impl ConfigSpace {
    /// Reads what sysfs shows; `None` if that is not even a header.
    pub(crate) fn read(bytes: &[u8]) -> Option<Self> {
        let header = bytes.get(..HEADER)?;
        Some(Self {
            header_type: header[usize::from(HEADER_TYPE)] & HEADER_TYPE_LAYOUT,
            interrupts: interrupt_vectors(bytes),
            hides_capabilities: hides_capabilities(bytes),
        })
    }
}

#[cfg(test)]
mod tests {
    use pci_config::InterruptKind;
    use pci_config::regs::{CAP_MSI, CAP_MSIX};

    use super::*;

    /// Vectors of INTx, MSI and MSI-X, and whether those of messages are not known.
    fn found(bytes: &[u8]) -> ([u16; 3], bool) {
        let read = ConfigSpace::read(bytes).unwrap();
        let vectors = InterruptKind::ALL.map(|kind| read.interrupts[kind]);
        (vectors, read.hides_capabilities)
    }

    fn config() -> Vec<u8> {
        let mut bytes = vec![0; 256];
        bytes[0x06] = 0x10;
        bytes[0x3d] = 1;
        bytes[0x34] = 0x40;
        bytes[0x40..0x44].copy_from_slice(&[CAP_MSI, 0x50, 0x0a, 0]);
        bytes[0x50..0x54].copy_from_slice(&[CAP_MSIX, 0, 0x40, 0]);
        bytes
    }

    #[test]
    fn vectors_are_counted() {
        assert_eq!(found(&config()), ([1, 32, 65], false));
        assert_eq!(ConfigSpace::read(&config()).unwrap().header_type, 0);
    }

    #[test]
    fn a_virtual_function_is_not_silent() {
        let mut bytes = vec![0xff; 256];
        assert!(is_silent(&bytes));
        bytes[0x0e] = 0;
        assert!(!is_silent(&bytes));
        assert!(!is_silent(&[]));
    }

    #[test]
    fn the_header_alone_hides_capabilities() {
        assert_eq!(ConfigSpace::read(&config()[..63]), None);
        assert_eq!(found(&config()[..64]), ([1, 0, 0], true));
        let mut none = config()[..64].to_vec();
        none[0x06] = 0;
        assert_eq!(found(&none), ([1, 0, 0], false));
    }

    #[test]
    fn a_list_that_runs_in_circles_ends() {
        let mut bytes = config();
        bytes[0x51] = 0x40;
        assert_eq!(found(&bytes), ([1, 32, 65], false));
    }

    proptest::proptest! {
        #[test]
        fn no_bytes_make_it_panic(bytes in proptest::collection::vec(proptest::num::u8::ANY, 0..300)) {
            let _ = ConfigSpace::read(&bytes);
        }
    }
}
