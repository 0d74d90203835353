// SPDX-License-Identifier: Apache-2.0 OR BSD-3-Clause

//! Which of the kernel's interfaces is used for devices that no IOMMU translates: `auto`, `cdev` or `group`.

use host::BackendChoice;
use serde::Deserializer;

use super::{ConfigError, text};

/// Reads the word.
///
/// # Errors
/// [`ConfigError`] for any other.
pub fn backend(word: &str) -> Result<BackendChoice, ConfigError> {
    text::one_of(text::deserializer(word))
}

/// The same in a file, where it is given.
///
/// # Errors
/// As [`backend`].
pub fn deserialize_backend<'de, D: Deserializer<'de>>(
    deserializer: D,
) -> Result<Option<BackendChoice>, D::Error> {
    text::one_of(deserializer).map(Some)
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn there_are_three_words() {
        assert_eq!(backend("auto"), Ok(BackendChoice::default()));
        assert_eq!(backend("cdev"), Ok(BackendChoice::Cdev));
        assert_eq!(backend("group"), Ok(BackendChoice::Group));
        let refused = backend("iommufd").unwrap_err().to_string();
        assert_eq!(refused, "expected auto|cdev|group, found \"iommufd\"");
    }
}
