// SPDX-License-Identifier: Apache-2.0 OR BSD-3-Clause

//! What a function's config space tells.

use pci_config::regs::{
    CAP_MSI, CAP_MSIX, HEADER_END, HEADER_TYPE, HEADER_TYPE_LAYOUT, INTERRUPT_PIN, MSI_CONTROL,
    MSIX_CONTROL,
};
use pci_config::{Capability, MsiControl, MsixControl, capabilities, hides_capabilities, word};

/// Bytes that every caller can read.
const HEADER: usize = HEADER_END as usize;

/// Facts of a function's config space.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(crate) struct ConfigSpace {
    /// 0 for a device, 1 for a bridge, 2 for a CardBus bridge.
    pub header_type: u8,
    /// Whether it has INTx.
    pub intx: bool,
    /// Vectors of MSI and MSI-X; `None` where the capabilities were not shown.
    pub messages: Option<(u16, u16)>,
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
            intx: header[usize::from(INTERRUPT_PIN)] != 0,
            messages: (!hides_capabilities(bytes)).then(|| messages(bytes)),
        })
    }
}

/// Vectors of MSI and of MSI-X.
fn messages(bytes: &[u8]) -> (u16, u16) {
    let (mut msi, mut msix) = (0, 0);
    for Ok(Capability { id, offset, .. }) in capabilities(bytes) {
        let control = |register| word(bytes, offset + register);
        match u8::try_from(id) {
            Ok(CAP_MSI) => msi = control(MSI_CONTROL).map_or(msi, |c| 1 << MsiControl(c).capable()),
            Ok(CAP_MSIX) => msix = control(MSIX_CONTROL).map_or(msix, |c| MsixControl(c).vectors()),
            _ => {}
        }
    }
    (msi, msix)
}

#[cfg(test)]
mod tests {
    use super::*;

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
        let read = ConfigSpace::read(&config()).unwrap();
        assert!(read.intx);
        assert_eq!(read.messages, Some((32, 65)));
        assert_eq!(read.header_type, 0);
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
        let short = ConfigSpace::read(&config()[..64]).unwrap();
        assert_eq!(short.messages, None);
        let mut none = config()[..64].to_vec();
        none[0x06] = 0;
        assert_eq!(ConfigSpace::read(&none).unwrap().messages, Some((0, 0)));
    }

    #[test]
    fn a_list_that_runs_in_circles_ends() {
        let mut bytes = config();
        bytes[0x51] = 0x40;
        assert_eq!(ConfigSpace::read(&bytes).unwrap().messages, Some((32, 65)));
    }

    proptest::proptest! {
        #[test]
        fn no_bytes_make_it_panic(bytes in proptest::collection::vec(proptest::num::u8::ANY, 0..300)) {
            let _ = ConfigSpace::read(&bytes);
        }
    }
}
