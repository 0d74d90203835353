// SPDX-License-Identifier: Apache-2.0 OR BSD-3-Clause

//! The register profile of a device.

use std::path::PathBuf;

use devices::mediate::Profile;

use super::{DeviceConfig, input_file};
use crate::error::Error;
use crate::error::explain::FileError;

/// The profile that a device was given: the name of a shipped one, or else a file.
///
/// # Errors
/// [`Error::File`], [`Error::Bus`]
pub fn profile(device: &DeviceConfig) -> Result<Option<Profile>, Error> {
    let read = |path: &PathBuf| {
        if let Some(shipped) = path.to_str().map(Profile::shipped).transpose()?.flatten() {
            return Ok(shipped);
        }
        let text = input_file::read_text(path).map_err(|source| FileError {
            what: "profile",
            path: path.clone(),
            source,
        })?;
        Ok(Profile::parse(&path.display().to_string(), &text)?)
    };
    device.profile.as_ref().map(read).transpose()
}
