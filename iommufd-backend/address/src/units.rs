// SPDX-License-Identifier: Apache-2.0 OR BSD-3-Clause

//! Numbers in readable units.

use core::fmt;

/// Bytes of memory in binary units, with one digit behind the point unless it is 0: `2 MiB`, `1.5 GiB`.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Memory(pub u64);

impl fmt::Display for Memory {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        const UNITS: [&str; 7] = ["B", "KiB", "MiB", "GiB", "TiB", "PiB", "EiB"];
        let power = usize::min(self.0.checked_ilog2().unwrap_or(0) as usize / 10, 6);
        let tenths = (u128::from(self.0) * 10) >> (10 * power);
        let unit = UNITS.get(power).unwrap_or(&"");
        match tenths % 10 {
            0 => write!(f, "{} {unit}", tenths / 10),
            tenth => write!(f, "{}.{tenth} {unit}", tenths / 10),
        }
    }
}

/// Hexadecimal with `_` between groups of four digits: `0x1_4000_0000`.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Hex(pub u64);

impl fmt::Display for Hex {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        let groups = self.0.checked_ilog2().map_or(0, |bit| bit / 16);
        write!(f, "0x{:x}", self.0 >> (16 * groups))?;
        (0..groups)
            .rev()
            .try_for_each(|group| write!(f, "_{:04x}", (self.0 >> (16 * group)) & 0xffff))
    }
}

#[cfg(test)]
mod tests {
    extern crate std;
    use std::string::ToString;

    use super::*;

    #[test]
    fn numbers_read_well() {
        let memory = |bytes| Memory(bytes).to_string();
        assert_eq!(memory(0), "0 B");
        assert_eq!(memory(1023), "1023 B");
        assert_eq!(memory(3 << 19), "1.5 MiB");
        assert_eq!(memory(u64::MAX), "15.9 EiB");
        let hex = |address| Hex(address).to_string();
        assert_eq!(hex(0), "0x0");
        assert_eq!(hex(0x1_4000_0000), "0x1_4000_0000");
        assert_eq!(hex(0x10_0000), "0x10_0000");
        assert_eq!(hex(u64::MAX), "0xffff_ffff_ffff_ffff");
    }
}
