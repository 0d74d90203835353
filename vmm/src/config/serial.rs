// SPDX-License-Identifier: Apache-2.0 OR BSD-3-Clause

//! The destination of the guest's serial port.

use std::path::PathBuf;
use std::str::FromStr;

use serde::{Deserialize, Deserializer};

use super::{ConfigError, text};

/// Where the first serial port goes: `stdio`, `off`, `file=PATH`, `pty` or `socket=PATH`.
#[derive(Clone, Debug, Default, PartialEq, Eq)]
pub enum SerialConfig {
    /// To standard output, and from standard input.
    #[default]
    Stdio,
    /// Nowhere.
    Off,
    /// To a file, which is emptied first.
    File(PathBuf),
    /// To a pseudoterminal, and from it.
    Pty,
    /// To and from the client of a Unix stream socket.
    Socket(PathBuf),
}

impl FromStr for SerialConfig {
    type Err = ConfigError;

    fn from_str(text: &str) -> Result<Self, ConfigError> {
        text::word(text)
    }
}

impl<'de> Deserialize<'de> for SerialConfig {
    fn deserialize<D: Deserializer<'de>>(deserializer: D) -> Result<Self, D::Error> {
        let word = String::deserialize(deserializer)?;
        match word.split_once('=') {
            None if word == "stdio" => Ok(Self::Stdio),
            None if word == "off" => Ok(Self::Off),
            None if word == "pty" => Ok(Self::Pty),
            Some(("file", path)) if !path.is_empty() => Ok(Self::File(path.into())),
            Some(("socket", path)) if !path.is_empty() => Ok(Self::Socket(path.into())),
            _ => Err(text::unexpected(
                "stdio, off, file=PATH, pty or socket=PATH",
                &word,
            )),
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn serial_goes_to_five_places() {
        assert_eq!("stdio".parse(), Ok(SerialConfig::Stdio));
        assert_eq!("off".parse(), Ok(SerialConfig::Off));
        assert_eq!("file=a=b".parse(), Ok(SerialConfig::File("a=b".into())));
        assert_eq!("pty".parse(), Ok(SerialConfig::Pty));
        assert_eq!("socket=/s".parse(), Ok(SerialConfig::Socket("/s".into())));
        for text in ["", "file", "file=", "stdio=x", "pty=x", "socket", "socket="] {
            assert!(text.parse::<SerialConfig>().is_err(), "{text}");
        }
    }
}
