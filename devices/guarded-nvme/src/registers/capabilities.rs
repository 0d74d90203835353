// SPDX-License-Identifier: Apache-2.0 OR BSD-3-Clause

//! CAP, VS and CRTO, made of the device's.

use crate::bits::{join16, low16};
use crate::spec::registers::{Capabilities, Version};

/// What the monitor's own commands before RDY = 1 may take, in units of 500 ms: identifying a controller and all its
/// namespaces.
const OWN_TIMEOUT: u8 = 20;

const CQR: u64 = 1 << 16;
const CSS_NVM: u64 = 1 << 37;
/// CPS, bits 47:46.
const CPS: u64 = 3 << 46;
/// CRMS bit 0, Controller Ready With Media Support. Bit 1 is not offered.
const CRWMS: u64 = 1 << 59;

/// The read-only registers of a guest's controller.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Identity {
    /// CAP, but for DSTRD.
    cap: u64,
    /// VS.
    pub version: Version,
    /// CRTO.
    pub ready_timeouts: u32,
}

impl Identity {
    /// Of a device's CAP, VS and CRTO, with queues of at most `depth` entries.
    #[must_use]
    pub fn new(device: Capabilities, version: Version, ready_timeouts: u32, depth: u16) -> Self {
        let timeout = u64::from(device.timeout().saturating_add(OWN_TIMEOUT)) << 24;
        let passed = device.0 & (CPS | CRWMS);
        let last = u64::from(depth.saturating_sub(1).min(device.last_entry()));
        let with_media = low16(ready_timeouts).saturating_add(OWN_TIMEOUT.into());
        let has_timeouts = device.0 & CRWMS != 0;
        Self {
            cap: last | CQR | timeout | CSS_NVM | passed,
            version: version.capped(),
            ready_timeouts: if has_timeouts {
                join16(with_media, 0)
            } else {
                0
            },
        }
    }

    /// CAP where doorbells are 4 << `stride` bytes apart.
    #[must_use]
    pub fn cap(&self, stride: u8) -> u64 {
        self.cap | u64::from(stride & 0xf) << 32
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn of_a_device_that_has_everything_only_the_listed_is_shown() {
        let identity = Identity::new(Capabilities(!0), Version(!0), !0, 256);
        // MQES 255, CQR, TO 255, DSTRD 10, CSS 1, CPS 3, CRMS 1.
        let expected = 255 | 1 << 16 | 255 << 24 | 10 << 32 | 1 << 37 | 3 << 46 | 1 << 59;
        assert_eq!(identity.cap(10), expected);
        assert_eq!(identity.version, Version::NEWEST);
        assert_eq!(identity.ready_timeouts, 0xffff);
    }

    #[test]
    fn of_a_device_that_has_little_the_least_is_shown() {
        let identity = Identity::new(Capabilities(31 | 4 << 24), Version(0x1_0200), 9, 64);
        let expected = 31 | 1 << 16 | 24 << 24 | 12 << 32 | 1 << 37;
        assert_eq!(identity.cap(12), expected);
        assert_eq!(identity.version, Version(0x1_0200));
        assert_eq!(identity.ready_timeouts, 0, "it has no such timeouts");
        let identity = Identity::new(Capabilities(1 << 59), Version(0), 0x9_0005, 64);
        assert_eq!(identity.ready_timeouts, 25);
    }
}
