// SPDX-License-Identifier: Apache-2.0 OR BSD-3-Clause

//! The address windows of the bus's host bridge: which addresses on the bus its CPUs' addresses are.

use std::ops::Range;
use std::sync::Arc;

use address::{BusAddr, Gpa};

/// A range of the CPUs' addresses that the host bridge forwards to the bus.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct BusWindow {
    /// The CPUs' addresses.
    pub cpu: Range<Gpa>,
    /// The first of them on the bus.
    pub bus: BusAddr,
}

/// All windows of a host bridge. BARs hold addresses on the bus. Without a window all of them are the CPUs', which is
/// so on x86.
#[derive(Clone, Debug, Default, PartialEq, Eq)]
pub struct BusWindows(Arc<[BusWindow]>);

impl FromIterator<BusWindow> for BusWindows {
    fn from_iter<I: IntoIterator<Item = BusWindow>>(windows: I) -> Self {
        Self(windows.into_iter().collect())
    }
}

impl BusWindows {
    /// All of them; none if all addresses on the bus are the CPUs'.
    #[must_use]
    pub fn all(&self) -> &[BusWindow] {
        &self.0
    }

    /// The address on the bus of `gpa`; `None` where no window is.
    #[must_use]
    pub fn to_bus(&self, gpa: Gpa) -> Option<BusAddr> {
        if self.0.is_empty() {
            return Some(BusAddr(gpa.0));
        }
        let window = self.0.iter().find(|window| window.cpu.contains(&gpa))?;
        window.bus.checked_add(gpa - window.cpu.start)
    }

    /// The CPUs' address of `bus`; `None` if no window forwards to it.
    #[must_use]
    pub fn to_gpa(&self, bus: BusAddr) -> Option<Gpa> {
        if self.0.is_empty() {
            return Some(Gpa(bus.0));
        }
        self.0.iter().find_map(|window| {
            let offset = bus.0.checked_sub(window.bus.0)?;
            let gpa = window.cpu.start.checked_add(offset)?;
            window.cpu.contains(&gpa).then_some(gpa)
        })
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    /// Raspberry Pi 5, external connector.
    fn pi5() -> BusWindows {
        let window = |cpu: Range<u64>, bus| BusWindow {
            cpu: Gpa(cpu.start)..Gpa(cpu.end),
            bus: BusAddr(bus),
        };
        [
            window(0x1b_0000_0000..0x1b_ffff_fffc, 0),
            window(0x18_0000_0000..0x1b_0000_0000, 0x4_0000_0000),
        ]
        .into_iter()
        .collect()
    }

    #[test]
    fn addresses_of_windows_are_translated_and_no_others() {
        let windows = pi5();
        for (gpa, bus) in [
            (0x1b_0000_0000, 0),
            (0x1b_8000_1000, 0x8000_1000),
            (0x18_0000_0000, 0x4_0000_0000),
            (0x1a_ffff_ffff, 0x6_ffff_ffff),
        ] {
            assert_eq!(windows.to_bus(Gpa(gpa)), Some(BusAddr(bus)));
            assert_eq!(windows.to_gpa(BusAddr(bus)), Some(Gpa(gpa)));
        }
        assert_eq!(windows.to_bus(Gpa(0x1b_ffff_fffc)), None);
        for bus in [0xffff_fffc, 0x7_0000_0000, u64::MAX] {
            assert_eq!(windows.to_gpa(BusAddr(bus)), None);
        }
    }

    #[test]
    fn without_windows_both_are_the_same() {
        let none = BusWindows::default();
        assert_eq!(none.to_bus(Gpa(7)), Some(BusAddr(7)));
        assert_eq!(none.to_gpa(BusAddr(u64::MAX)), Some(Gpa(u64::MAX)));
    }
}
