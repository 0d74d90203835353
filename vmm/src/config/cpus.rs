// SPDX-License-Identifier: Apache-2.0 OR BSD-3-Clause

//! The number of a guest's CPUs.

use std::fmt;
use std::str::FromStr;

use serde::de::{Error, Visitor};
use serde::{Deserialize, Deserializer};

use super::{ConfigError, text};

/// CPUs that a guest can have.
pub const MOST_CPUS: u8 = 32;

/// How many CPUs a guest has, from 1 to [`MOST_CPUS`]: `N` or `boot=N`.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct CpuCount(u8);

impl CpuCount {
    /// `None` unless `count` is from 1 to [`MOST_CPUS`].
    #[must_use]
    pub fn new(count: u8) -> Option<Self> {
        (1..=MOST_CPUS).contains(&count).then_some(Self(count))
    }

    /// The number.
    #[must_use]
    pub fn get(self) -> u8 {
        self.0
    }
}

impl Default for CpuCount {
    fn default() -> Self {
        Self(1)
    }
}

impl FromStr for CpuCount {
    type Err = ConfigError;

    fn from_str(text: &str) -> Result<Self, ConfigError> {
        text::word(text)
    }
}

/// A number, or a string as on the command line.
impl<'de> Deserialize<'de> for CpuCount {
    fn deserialize<D: Deserializer<'de>>(deserializer: D) -> Result<Self, D::Error> {
        deserializer.deserialize_any(CpuCountVisitor)
    }
}

struct CpuCountVisitor;

impl Visitor<'_> for CpuCountVisitor {
    type Value = CpuCount;

    fn expecting(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str("a number or a string")
    }

    fn visit_i64<E: Error>(self, count: i64) -> Result<CpuCount, E> {
        self.visit_str(&count.to_string())
    }

    fn visit_u64<E: Error>(self, count: u64) -> Result<CpuCount, E> {
        self.visit_str(&count.to_string())
    }

    fn visit_str<E: Error>(self, text: &str) -> Result<CpuCount, E> {
        text.strip_prefix("boot=")
            .unwrap_or(text)
            .parse()
            .ok()
            .and_then(CpuCount::new)
            .ok_or_else(|| text::unexpected(format_args!("1 to {MOST_CPUS} CPUs"), text))
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn cpus_are_counted_with_and_without_the_word() {
        let count = |text: &str| text.parse::<CpuCount>().map(CpuCount::get);
        assert_eq!(count("1"), Ok(1));
        assert_eq!(count("boot=4"), Ok(4));
        assert_eq!(count("32"), Ok(MOST_CPUS));
        for text in ["0", "33", "256", "-1", "", "boot=", "max=4"] {
            assert!(count(text).is_err(), "{text}");
        }
    }
}
