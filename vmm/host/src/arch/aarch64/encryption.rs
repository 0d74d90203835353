// SPDX-License-Identifier: Apache-2.0 OR BSD-3-Clause

//! Encryption of memory: no CPU of this architecture encrypts a machine's by address.

use std::fmt;

use crate::sys_root::SysRoot;

/// Encryption by which the address that the kernel tells is not the one that a device needs: none.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Encryption {}

impl Encryption {
    /// What is on, and what it means, in a sentence.
    #[must_use]
    pub fn meaning(self) -> &'static str {
        match self {}
    }

    /// What the user can do about it.
    #[must_use]
    pub fn hint(self) -> &'static str {
        match self {}
    }
}

/// Why it is unknown whether memory is encrypted: it is known.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum EncryptionUnknown {}

impl fmt::Display for EncryptionUnknown {
    fn fmt(&self, _: &mut fmt::Formatter<'_>) -> fmt::Result {
        match *self {}
    }
}

/// Whether memory is encrypted in a way that keeps devices without an IOMMU from it.
///
/// # Errors
/// None.
pub fn memory_encryption(_: &SysRoot) -> Result<Option<Encryption>, EncryptionUnknown> {
    Ok(None)
}
