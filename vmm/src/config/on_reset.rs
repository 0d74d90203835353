// SPDX-License-Identifier: Apache-2.0 OR BSD-3-Clause

//! What to do if a guest restarts.

use std::str::FromStr;

use serde::{Deserialize, Deserializer};
use strum::{EnumIter, IntoStaticStr};

use super::{ConfigError, text};

/// What is done when a guest asks for a restart.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq, EnumIter, IntoStaticStr)]
#[strum(serialize_all = "lowercase")]
pub enum OnReset {
    /// The run ends, with a separate exit code: Linux restarts after a panic, too.
    #[default]
    Exit,
    /// The devices are reset, memory is released, and the guest is booted again.
    Restart,
}

impl FromStr for OnReset {
    type Err = ConfigError;

    fn from_str(text: &str) -> Result<Self, ConfigError> {
        text::word(text)
    }
}

impl<'de> Deserialize<'de> for OnReset {
    fn deserialize<D: Deserializer<'de>>(deserializer: D) -> Result<Self, D::Error> {
        text::one_of(deserializer)
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn there_are_two_words() {
        assert_eq!("exit".parse(), Ok(OnReset::Exit));
        assert_eq!("restart".parse(), Ok(OnReset::Restart));
        for other in ["", "reboot", "Exit", "exit,restart"] {
            let error = other.parse::<OnReset>().unwrap_err().to_string();
            assert!(error.contains("expected exit|restart"), "{error}");
        }
    }
}
