// SPDX-License-Identifier: Apache-2.0 OR BSD-3-Clause

//! Faults of a profile, before they become errors of its file.

use super::error::Invalid;

/// A key and what is wrong with its value.
pub(super) struct Problem {
    pub key: String,
    pub reason: Invalid,
}

/// That the value of `key` is wrong.
pub(super) fn problem(key: impl Into<String>, reason: Invalid) -> Problem {
    Problem {
        key: key.into(),
        reason,
    }
}

/// Whether a name is one.
pub(super) fn check_name(name: &str) -> Result<(), Invalid> {
    let plain = |byte| matches!(byte, b'a'..=b'z' | b'A'..=b'Z' | b'0'..=b'9' | b'-' | b'_');
    if (1..=32).contains(&name.len()) && name.bytes().all(plain) {
        Ok(())
    } else {
        let name = name.to_owned();
        Err(Invalid::Name { name })
    }
}

/// That a number which was `found` is as `expected`.
pub(super) fn number(holds: bool, found: u64, expected: &'static str) -> Result<(), Invalid> {
    if holds {
        Ok(())
    } else {
        Err(Invalid::Number { found, expected })
    }
}
