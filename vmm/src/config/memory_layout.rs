// SPDX-License-Identifier: Apache-2.0 OR BSD-3-Clause

//! Where guest RAM is for devices that use physical addresses.

use serde::{Deserialize, Deserializer};
use strum::{EnumIter, IntoStaticStr};

use super::text;

/// How guest RAM is laid out where devices use physical addresses: `auto`, `identity` or `packed`.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq, EnumIter, IntoStaticStr)]
#[strum(serialize_all = "lowercase")]
pub enum MemoryLayout {
    /// `identity` where it is possible, otherwise `packed` where that is.
    #[default]
    Auto,
    /// At its host-physical addresses.
    Identity,
    /// At addresses of the guest's own, which its device tree translates for devices.
    Packed,
}

impl<'de> Deserialize<'de> for MemoryLayout {
    fn deserialize<D: Deserializer<'de>>(deserializer: D) -> Result<Self, D::Error> {
        text::one_of(deserializer)
    }
}
