// SPDX-License-Identifier: Apache-2.0 OR BSD-3-Clause

//! How much a running monitor is confined.

use std::path::PathBuf;
use std::str::FromStr;

use serde::{Deserialize, Deserializer};
use strum::{EnumIter, IntoStaticStr};

use super::{ConfigError, text};

/// What is done about system calls that are not in [the table](../../../docs/reference/confinement.md).
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq, EnumIter, IntoStaticStr)]
#[strum(serialize_all = "lowercase")]
pub enum Seccomp {
    /// They end the process.
    #[default]
    On,
    /// The kernel logs and performs them.
    Log,
    /// Nothing.
    Off,
}

impl FromStr for Seccomp {
    type Err = ConfigError;

    fn from_str(text: &str) -> Result<Self, ConfigError> {
        text::word(text)
    }
}

impl<'de> Deserialize<'de> for Seccomp {
    fn deserialize<D: Deserializer<'de>>(deserializer: D) -> Result<Self, D::Error> {
        text::one_of(deserializer)
    }
}

/// The name of a user: `NAME`, or `UID` with an optional `:GID`.
#[derive(Clone, Debug, PartialEq, Eq)]
pub enum UserName {
    /// By name, with the group of that user.
    Name(String),
    /// By number. Without a group's number the user must be a known one, and the group is that user's.
    Number(u32, Option<u32>),
}

impl FromStr for UserName {
    type Err = ConfigError;

    fn from_str(text: &str) -> Result<Self, ConfigError> {
        text::word(text)
    }
}

impl<'de> Deserialize<'de> for UserName {
    fn deserialize<D: Deserializer<'de>>(deserializer: D) -> Result<Self, D::Error> {
        let word = String::deserialize(deserializer)?;
        let (user, group) = match word.split_once(':') {
            Some((user, group)) => (user, Some(group)),
            None => (word.as_str(), None),
        };
        // The largest number means "none" to the kernel (setresuid(2)).
        let number = |text: &str| {
            let number = text.parse::<u32>();
            number.ok().filter(|number| *number != u32::MAX)
        };
        match (number(user), group.map(number)) {
            (Some(user), None) => Ok(Self::Number(user, None)),
            (Some(user), Some(Some(group))) => Ok(Self::Number(user, Some(group))),
            (None, None) if user.starts_with(|first: char| !first.is_ascii_digit()) => {
                Ok(Self::Name(word))
            }
            _ => Err(text::unexpected("NAME, UID or UID:GID", &word)),
        }
    }
}

/// How much a running monitor is confined.
#[derive(Clone, Debug, Default, PartialEq, Eq)]
pub struct ConfineConfig {
    /// System calls.
    pub seccomp: Seccomp,
    /// The user that it is.
    pub user: Option<UserName>,
    /// The directory that is its root.
    pub root: Option<PathBuf>,
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn system_calls_are_refused_logged_or_neither() {
        assert_eq!("on".parse(), Ok(Seccomp::On));
        assert_eq!("log".parse(), Ok(Seccomp::Log));
        assert_eq!("off".parse(), Ok(Seccomp::Off));
        for other in ["", "On", "kill"] {
            let error = other.parse::<Seccomp>().unwrap_err().to_string();
            assert!(error.contains("expected on|log|off"), "{error}");
        }
    }

    #[test]
    fn a_user_has_a_name_or_a_number() {
        assert_eq!("nobody".parse(), Ok(UserName::Name("nobody".into())));
        assert_eq!("1000".parse(), Ok(UserName::Number(1000, None)));
        assert_eq!("1:2".parse(), Ok(UserName::Number(1, Some(2))));
        for wrong in [
            "",
            ":",
            "1:",
            "1:x",
            "nobody:1",
            "-1",
            "4294967295",
            "1:4294967295",
            "9x",
        ] {
            let parsed = wrong.parse::<UserName>();
            if wrong == "-1" {
                // No user has such a name.
                assert_eq!(parsed, Ok(UserName::Name("-1".into())));
            } else {
                assert!(parsed.is_err(), "{wrong}");
            }
        }
    }
}
