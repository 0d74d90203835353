// SPDX-License-Identifier: Apache-2.0 OR BSD-3-Clause

//! A statically linked busybox: the first program of the test machine and of guests.

use std::fs;
use std::path::{Path, PathBuf};

use super::apt::Apt;
use super::not_set_up;
use super::selection::Selection;
use crate::error::{AtPath, Result};
use crate::paths;

/// The busybox in the cache.
///
/// # Errors
/// [`Error::Missing`](crate::Error::Missing) if the testbed is not set up.
pub fn installed() -> Result<PathBuf> {
    let selection = Selection::load()?.ok_or_else(|| not_set_up("busybox"))?;
    let path = path(&selection)?;
    if path.exists() {
        Ok(path)
    } else {
        Err(not_set_up("busybox"))
    }
}

/// Downloads busybox if the cache has none.
pub fn install(selection: &Selection) -> Result<()> {
    let target = path(selection)?;
    if target.exists() {
        return Ok(());
    }
    let package = &selection.busybox;
    let apt = Apt::of_machine()?;
    paths::publish_file(&target, |partial| {
        let folder = tempfile::tempdir().at("create", Path::new("a temporary folder"))?;
        apt.unpack(&package.name, &package.version, folder.path())?;
        // Debian 13 moved /bin into /usr/bin.
        let places = ["usr/bin/busybox", "bin/busybox"].map(|place| folder.path().join(place));
        let source = if places[0].exists() {
            &places[0]
        } else {
            &places[1]
        };
        fs::copy(source, partial).at("copy", source).map(drop)
    })
}

fn path(selection: &Selection) -> Result<PathBuf> {
    Ok(paths::cache()?
        .join("busybox")
        .join(&selection.busybox.version))
}
