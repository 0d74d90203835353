// SPDX-License-Identifier: Apache-2.0 OR BSD-3-Clause

//! Errors of a profile.

use thiserror::Error;

/// A profile that cannot be used.
#[derive(Debug, Error)]
pub enum ProfileError {
    /// It is not TOML, or has a key that is unknown, missing or of another type.
    #[error("Profile {file}")]
    Syntax {
        /// How the profile was called.
        file: String,
        /// Where and why.
        source: toml::de::Error,
    },
    /// It is larger than any profile needs to be.
    #[error("Profile {file}: the file has {length} bytes (at most {limit})")]
    TooLarge {
        /// How the profile was called.
        file: String,
        /// Its bytes.
        length: usize,
        /// Most bytes that are read.
        limit: usize,
    },
    /// A key's value makes no sense.
    #[error("Profile {file}: {key}: {reason}")]
    Invalid {
        /// How the profile was called.
        file: String,
        /// Which key, for example `register "source": width`.
        key: String,
        /// Why.
        reason: Invalid,
    },
}

/// Why a key's value is refused.
#[derive(Clone, Debug, PartialEq, Eq, Error)]
pub enum Invalid {
    /// The format is another.
    #[error("{found} (expected version 1)")]
    Version {
        /// The value in the file.
        found: u64,
    },
    /// The device reads addresses from memory, where the monitor cannot check them.
    #[error(
        "a device that fetches descriptors from memory finds addresses there that are never \
         written to a register, so mediation does not cover it"
    )]
    Descriptors,
    /// There are none, or too many.
    #[error("{found} entries (expected 1 to {limit})")]
    Count {
        /// How many.
        found: usize,
        /// Most allowed.
        limit: usize,
    },
    /// A name is empty or not plain.
    #[error("{name:?} (expected 1 to 32 of the characters a to z, 0 to 9, '-' and '_')")]
    Name {
        /// The name.
        name: String,
    },
    /// A name is used twice.
    #[error("the name is already in use")]
    Duplicate,
    /// A number is outside of what makes sense.
    #[error("{found:#x} (expected {expected})")]
    Number {
        /// The value in the file.
        found: u64,
        /// What would do.
        expected: &'static str,
    },
    /// Two places share bytes.
    #[error("overlaps {other}")]
    Overlap {
        /// The other place.
        other: String,
    },
    /// A register is named that is not there.
    #[error("no register is named {name:?}")]
    NoRegister {
        /// The name.
        name: String,
    },
    /// A register has no role in any transfer.
    #[error("no transfer uses it")]
    Unused,
    /// A register has two roles that exclude one another.
    #[error("register {name:?} has another role already")]
    Role {
        /// The register.
        name: String,
    },
    /// A register that the device takes in several stores, where only one will do.
    #[error("register {name:?} is written in {stores} stores: {rule}")]
    Stores {
        /// The register.
        name: String,
        /// How many stores write all of it.
        stores: usize,
        /// What is required.
        rule: &'static str,
    },
    /// Keys do not go together, or one is missing.
    #[error("{0}")]
    Combination(&'static str),
}
