// SPDX-License-Identifier: Apache-2.0 OR BSD-3-Clause

//! The type of the first MiB in a guest's memory map.

use std::str::FromStr;

use serde::{Deserialize, Deserializer};
use strum::{EnumIter, IntoStaticStr};

use super::{ConfigError, text};

/// What the memory map calls the first 640 KiB: `auto`, `ram` or `reserved`. They are ordinary memory, but
/// not at their host-physical addresses, so no device may use them where it uses physical addresses.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq, EnumIter, IntoStaticStr)]
#[strum(serialize_all = "lowercase")]
pub enum LowMemory {
    /// RAM, unless the guest might use it for DMA: in the identity layout it is reserved for
    /// programs that are not known to be Linux.
    #[default]
    Auto,
    /// RAM: the program does not use it for DMA, by the user's word.
    Ram,
    /// Reserved.
    Reserved,
}

impl FromStr for LowMemory {
    type Err = ConfigError;

    fn from_str(text: &str) -> Result<Self, ConfigError> {
        text::word(text)
    }
}

impl<'de> Deserialize<'de> for LowMemory {
    fn deserialize<D: Deserializer<'de>>(deserializer: D) -> Result<Self, D::Error> {
        text::one_of(deserializer)
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn there_are_three_words() {
        assert_eq!("auto".parse(), Ok(LowMemory::default()));
        assert_eq!("ram".parse(), Ok(LowMemory::Ram));
        assert_eq!("reserved".parse(), Ok(LowMemory::Reserved));
        let refused = "RAM".parse::<LowMemory>().unwrap_err();
        assert_eq!(
            refused.to_string(),
            "expected auto|ram|reserved, found \"RAM\""
        );
    }
}
