//! What a function's config space tells.

use address::Bdf;

/// Offsets in the header (PCI Local Bus Specification 3.0, 6.1).
const STATUS: usize = 0x06;
const HEADER_TYPE: usize = 0x0e;
const CAPABILITIES: usize = 0x34;
const INTERRUPT_PIN: usize = 0x3d;
/// Bytes that every caller can read.
const HEADER: usize = 0x40;
/// STATUS: there is a list of capabilities.
const HAS_CAPABILITIES: u8 = 1 << 4;

/// Capability IDs.
const MSI: u8 = 0x05;
const MSIX: u8 = 0x11;

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

/// What the user can do about a function that [`is_silent`].
pub(crate) fn silent_way_out(bdf: Bdf) -> String {
    format!("dmesg | grep {bdf}  # why? A cold start of the machine helps a device that has hung")
}

impl ConfigSpace {
    /// Reads what sysfs shows; `None` if that is not even a header.
    pub(crate) fn read(bytes: &[u8]) -> Option<Self> {
        let header = bytes.get(..HEADER)?;
        let messages = if bytes.len() > HEADER {
            Some(messages(bytes))
        } else if header[STATUS] & HAS_CAPABILITIES == 0 {
            Some((0, 0))
        } else {
            None
        };
        Some(Self {
            header_type: header[HEADER_TYPE] & 0x7f,
            intx: header[INTERRUPT_PIN] != 0,
            messages,
        })
    }
}

/// Vectors of MSI and of MSI-X.
fn messages(bytes: &[u8]) -> (u16, u16) {
    let (mut msi, mut msix) = (0, 0);
    if bytes[STATUS] & HAS_CAPABILITIES == 0 {
        return (msi, msix);
    }
    let mut at = usize::from(bytes[CAPABILITIES] & !3);
    // A list cannot be longer than there is room for, however it is linked.
    for _ in 0..(256 - HEADER) / 4 {
        let Some(&[id, next, low, high]) = bytes
            .get(at..)
            .and_then(|rest| rest.first_chunk::<4>())
            .filter(|_| at >= HEADER)
        else {
            break;
        };
        let control = u16::from_le_bytes([low, high]);
        match id {
            MSI => msi = 1 << ((control >> 1) & 7),
            MSIX => msix = (control & 0x7ff) + 1,
            _ => {}
        }
        at = usize::from(next & !3);
    }
    (msi, msix)
}

#[cfg(test)]
mod tests {
    use super::*;

    fn config() -> Vec<u8> {
        let mut bytes = vec![0; 256];
        bytes[STATUS] = HAS_CAPABILITIES;
        bytes[INTERRUPT_PIN] = 1;
        bytes[CAPABILITIES] = 0x40;
        bytes[0x40..0x44].copy_from_slice(&[MSI, 0x50, 0x0a, 0]);
        bytes[0x50..0x54].copy_from_slice(&[MSIX, 0, 0x40, 0]);
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
        bytes[HEADER_TYPE] = 0;
        assert!(!is_silent(&bytes));
        assert!(!is_silent(&[]));
    }

    #[test]
    fn the_header_alone_hides_capabilities() {
        assert_eq!(ConfigSpace::read(&config()[..63]), None);
        let short = ConfigSpace::read(&config()[..64]).unwrap();
        assert_eq!(short.messages, None);
        let mut none = config()[..64].to_vec();
        none[STATUS] = 0;
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
