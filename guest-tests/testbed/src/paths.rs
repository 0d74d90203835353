// SPDX-License-Identifier: Apache-2.0 OR BSD-3-Clause

//! Where the testbed keeps its things, and how they get there whole.

use std::fs::{self, File};
use std::path::{Path, PathBuf};
use std::{env, io};

use sha2::{Digest, Sha256};

use crate::error::{AtPath, Error, Result};
use crate::setup::Arch;

/// The testbed's folder in the user's cache: `$XDG_CACHE_HOME/pinvisor/testbed`.
///
/// # Errors
/// [`Error::Usage`] if neither `XDG_CACHE_HOME` nor `HOME` is an absolute path.
pub fn cache() -> Result<PathBuf> {
    let absolute = |name| {
        env::var_os(name)
            .map(PathBuf::from)
            .filter(|path| path.is_absolute())
    };
    let base = absolute("XDG_CACHE_HOME")
        .or_else(|| absolute("HOME").map(|home| home.join(".cache")))
        .ok_or_else(|| Error::Usage("Neither XDG_CACHE_HOME nor HOME is set".into()))?;
    Ok(base.join("pinvisor").join("testbed"))
}

/// The root of the checkout that this program was built from.
#[must_use]
pub fn checkout() -> PathBuf {
    let package = Path::new(env!("CARGO_MANIFEST_DIR"));
    package.ancestors().nth(2).unwrap_or(package).to_path_buf()
}

/// A program built beside this one.
///
/// # Errors
/// [`Error::File`] if the system does not report this program's path.
pub fn sibling_program(name: &str) -> Result<PathBuf> {
    let own = env::current_exe().at("find", "/proc/self/exe")?;
    let folder = own.parent().unwrap_or(Path::new("/"));
    let folder = if folder.ends_with("deps") {
        folder.parent().unwrap_or(folder)
    } else {
        folder
    };
    Ok(folder.join(name))
}

/// What programs that run in a guest are built for.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum GuestTarget {
    /// Static programs for Linux on this architecture.
    Linux(Arch),
    /// No operating system.
    BareMetal(Arch),
}

impl GuestTarget {
    /// Its name for cargo.
    #[must_use]
    pub fn triple(self) -> &'static str {
        match self {
            Self::Linux(Arch::X86_64) => rust_target::LINUX,
            Self::Linux(Arch::Aarch64) => rust_target::AARCH64_LINUX,
            Self::BareMetal(Arch::X86_64) => rust_target::BARE_METAL,
            Self::BareMetal(Arch::Aarch64) => rust_target::AARCH64_BARE_METAL,
        }
    }
}

/// A program of this workspace for guests, built beside this one.
///
/// # Errors
/// [`Error::Missing`] if it has not been built; [`Error::File`] if the system does not report this
/// program's path.
pub fn guest_program(name: &str, target: GuestTarget) -> Result<PathBuf> {
    let triple = target.triple();
    let path = program_of(target, name)?;
    if path.is_file() {
        return Ok(path);
    }
    Err(Error::Missing {
        what: path.display().to_string(),
        command: format!("cargo build --release --package {name} --target {triple}"),
    })
}

/// Where a program of this workspace for `target` is, if it has been built.
///
/// # Errors
/// [`Error::File`] if the system does not tell where this program is.
pub fn program_of(target: GuestTarget, name: &str) -> Result<PathBuf> {
    let profile = sibling_program("")?;
    let folder = profile.parent().unwrap_or(&profile);
    Ok(folder.join(target.triple()).join("release").join(name))
}

/// Creates a folder and its parents.
///
/// # Errors
/// [`Error::File`].
pub fn create_folder(path: &Path) -> Result<()> {
    fs::create_dir_all(path).at("create", path)
}

/// Runs `make` on an empty folder beside `target` and renames it to `target` when it succeeded.
/// An interrupted attempt leaves only the neighbour, which the next attempt clears away.
///
/// # Errors
/// What `make` returns, or [`Error::File`].
pub fn publish_folder(target: &Path, make: impl FnOnce(&Path) -> Result<()>) -> Result<()> {
    let partial = partial_of(target);
    remove_folder(&partial)?;
    create_folder(&partial)?;
    make(&partial)?;
    remove_folder(target)?;
    fs::rename(&partial, target).at("rename to", target)
}

/// Like [`publish_folder`] for a single file; `make` creates it.
///
/// # Errors
/// What `make` returns, or [`Error::File`].
pub fn publish_file(target: &Path, make: impl FnOnce(&Path) -> Result<()>) -> Result<()> {
    if let Some(parent) = target.parent() {
        create_folder(parent)?;
    }
    let partial = partial_of(target);
    make(&partial)?;
    let file = File::open(&partial).at("open", &partial)?;
    file.sync_all().at("sync", &partial)?;
    fs::rename(&partial, target).at("rename to", target)
}

/// Removes a folder that may not be there.
///
/// # Errors
/// [`Error::File`].
pub fn remove_folder(path: &Path) -> Result<()> {
    match fs::remove_dir_all(path) {
        Err(error) if error.kind() != io::ErrorKind::NotFound => Err(error).at("remove", path),
        _ => Ok(()),
    }
}

/// The first 16 hexadecimal digits of the SHA-256 of all parts and their lengths.
#[must_use]
pub fn key(parts: &[&str]) -> String {
    let mut hash = Sha256::new();
    for part in parts {
        hash.update(part.len().to_le_bytes());
        hash.update(part);
    }
    hex(&hash.finalize())[..16].to_string()
}

/// Lower-case hexadecimal digits of `bytes`.
#[must_use]
pub fn hex(bytes: &[u8]) -> String {
    bytes.iter().map(|byte| format!("{byte:02x}")).collect()
}

fn partial_of(target: &Path) -> PathBuf {
    let mut name = target.file_name().unwrap_or_default().to_os_string();
    name.push(".partial");
    target.with_file_name(name)
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn key_separates_its_parts() {
        assert_ne!(key(&["ab", "c"]), key(&["a", "bc"]));
        assert_eq!(key(&["ab", "c"]), key(&["ab", "c"]));
    }

    #[test]
    fn failed_attempt_publishes_nothing_and_the_next_starts_empty() {
        let folder = tempfile::tempdir().unwrap();
        let target = folder.path().join("thing");
        let failed = publish_folder(&target, |partial| {
            fs::write(partial.join("half"), "x").unwrap();
            Err(Error::Interrupted)
        });
        assert!(failed.is_err());
        assert!(!target.exists());
        publish_folder(&target, |partial| {
            assert!(!partial.join("half").exists());
            fs::write(partial.join("whole"), "x").at("write", partial)
        })
        .unwrap();
        assert!(target.join("whole").exists());
    }
}
