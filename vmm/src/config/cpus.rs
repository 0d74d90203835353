//! How many CPUs a guest has.

use std::str::FromStr;

use super::ConfigError;

/// CPUs that a guest can have.
pub const MOST_CPUS: u8 = 32;

/// How many CPUs a guest has, from 1 to [`MOST_CPUS`]: `N` or `boot=N`.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct CpuCount(u8);

impl CpuCount {
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
        text.strip_prefix("boot=")
            .unwrap_or(text)
            .parse()
            .ok()
            .filter(|count| (1..=MOST_CPUS).contains(count))
            .map(Self)
            .ok_or_else(|| ConfigError::Cpus(text.to_owned()))
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
