// SPDX-License-Identifier: Apache-2.0 OR BSD-3-Clause

//! The registers of BAR0: offsets and bits (Base 3.1.4).

/// Controller Capabilities, 8 bytes.
pub const CAP: u32 = 0x00;
/// Version.
pub const VS: u32 = 0x08;
/// Controller Configuration.
pub const CC: u32 = 0x14;
/// Controller Status.
pub const CSTS: u32 = 0x1c;
/// Admin Queue Attributes.
pub const AQA: u32 = 0x24;
/// Admin Submission Queue Base Address, 8 bytes.
pub const ASQ: u32 = 0x28;
/// Admin Completion Queue Base Address, 8 bytes.
pub const ACQ: u32 = 0x30;
/// Controller Memory Buffer Memory Space Control, 8 bytes.
pub const CMBMSC: u32 = 0x50;
/// Controller Ready Timeouts.
pub const CRTO: u32 = 0x68;
/// Persistent Memory Region Control.
pub const PMRCTL: u32 = 0xe00;
/// Persistent Memory Region Memory Space Control, lower half.
pub const PMRMSCL: u32 = 0xe14;
/// Persistent Memory Region Memory Space Control, upper half.
pub const PMRMSCU: u32 = 0xe18;
/// The first doorbell.
pub const DOORBELLS: u32 = 0x1000;

/// A version of the specification: major in bits 31:16, minor in 15:8, tertiary in 7:0.
#[derive(Clone, Copy, Debug, PartialEq, Eq, PartialOrd, Ord)]
pub struct Version(pub u32);

impl Version {
    /// 1.1: the list of active namespaces.
    pub const V1_1: Self = Self(0x0001_0100);
    /// 1.3: descriptors of namespaces.
    pub const V1_3: Self = Self(0x0001_0300);
    /// The newest version whose commands and registers were gone through.
    pub const NEWEST: Self = Self(0x0002_0200);

    /// The version, at most [`NEWEST`](Self::NEWEST).
    #[must_use]
    pub fn capped(self) -> Self {
        self.min(Self::NEWEST)
    }
}

/// CAP of a device.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Capabilities(pub u64);

impl Capabilities {
    /// MQES: entries of a queue, 0's based.
    #[must_use]
    pub const fn last_entry(self) -> u16 {
        crate::bits::low16(crate::bits::low32(self.0))
    }

    /// TO, in units of 500 ms.
    #[must_use]
    pub const fn timeout(self) -> u8 {
        self.0.to_le_bytes()[3]
    }

    /// DSTRD: a doorbell takes 4 << this bytes.
    #[must_use]
    pub const fn stride(self) -> u32 {
        4 << (self.0 >> 32 & 0xf)
    }

    /// CSS bit 0: the NVM command set.
    #[must_use]
    pub const fn has_nvm(self) -> bool {
        self.0 >> 37 & 1 != 0
    }

    /// CSS bit 6: one or more command sets, of which namespaces can be.
    #[must_use]
    pub const fn has_command_sets(self) -> bool {
        self.0 >> 43 & 1 != 0
    }

    /// MPSMIN: 4 KiB << this is the least page size.
    #[must_use]
    pub const fn least_page(self) -> u8 {
        self.0.to_le_bytes()[6] & 0xf
    }

    /// PMRS: there is a persistent memory region.
    #[must_use]
    pub const fn has_pmr(self) -> bool {
        self.0 >> 56 & 1 != 0
    }

    /// CMBS: there is a controller memory buffer.
    #[must_use]
    pub const fn has_cmb(self) -> bool {
        self.0 >> 57 & 1 != 0
    }
}

/// CC.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub struct Configuration(pub u32);

impl Configuration {
    /// EN, IOSQES 6, IOCQES 4; all else 0: pages of 4 KiB, round robin, the NVM command set.
    pub const ENABLED: Self = Self(0x0046_0001);

    const SHUTDOWN: u32 = 3 << 14;

    /// EN.
    #[must_use]
    pub const fn is_enabled(self) -> bool {
        self.0 & 1 != 0
    }

    /// SHN: 0 for none.
    #[must_use]
    pub const fn shutdown(self) -> u32 {
        self.0 >> 14 & 3
    }

    /// The same with this SHN.
    #[must_use]
    pub const fn with_shutdown(self, kind: u32) -> Self {
        Self(self.0 & !Self::SHUTDOWN | (kind & 3) << 14)
    }

    /// Whether a controller can be enabled so: it offers nothing but [`ENABLED`](Self::ENABLED). A shutdown
    /// request is not part of the configuration.
    #[must_use]
    pub const fn is_offered(self) -> bool {
        self.with_shutdown(0).0 == Self::ENABLED.0
    }
}

/// CSTS of a device.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct DeviceStatus(pub u32);

impl DeviceStatus {
    /// All ones: nothing responds.
    #[must_use]
    pub const fn is_gone(self) -> bool {
        self.0 == u32::MAX
    }

    /// RDY.
    #[must_use]
    pub const fn is_ready(self) -> bool {
        self.0 & 1 != 0
    }

    /// CFS.
    #[must_use]
    pub const fn is_fatal(self) -> bool {
        self.0 & 2 != 0
    }

    /// SHST.
    #[must_use]
    pub const fn shutdown(self) -> u32 {
        self.0 >> 2 & 3
    }

    /// PP.
    #[must_use]
    pub const fn is_paused(self) -> bool {
        self.0 & 1 << 5 != 0
    }
}

/// SHST: a shutdown is complete.
pub const SHUTDOWN_COMPLETE: u32 = 2;

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn only_the_one_configuration_is_offered() {
        assert!(Configuration::ENABLED.is_offered());
        assert!(Configuration::ENABLED.with_shutdown(1).is_offered());
        for bit in (0..32).filter(|bit| !(14..16).contains(bit)) {
            let other = Configuration(Configuration::ENABLED.0 ^ 1 << bit);
            assert!(!other.is_offered(), "bit {bit}");
        }
        assert_eq!(Configuration::ENABLED.with_shutdown(2).shutdown(), 2);
    }

    #[test]
    fn capabilities_are_where_the_specification_has_them() {
        // MQES 2047, CQR, TO 15, DSTRD 1, CSS 41h, MPSMIN 2, MPSMAX 4, PMRS, CMBS.
        let bits = 2047 | 1 << 16 | 15 << 24 | 1 << 32 | 0x41 << 37 | 2 << 48 | 4 << 52 | 3 << 56;
        let cap = Capabilities(bits);
        assert_eq!(
            (cap.last_entry(), cap.timeout(), cap.stride()),
            (2047, 15, 8)
        );
        assert!(cap.has_nvm() && cap.has_command_sets() && cap.has_pmr() && cap.has_cmb());
        assert_eq!(cap.least_page(), 2);
        let none = Capabilities(!(1 << 37 | 1 << 43 | 3 << 56));
        assert!(!none.has_nvm() && !none.has_command_sets() && !none.has_pmr() && !none.has_cmb());
    }
}
