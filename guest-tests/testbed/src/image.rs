// SPDX-License-Identifier: Apache-2.0 OR BSD-3-Clause

//! Disk images of bytes that cannot be guessed but that are the same every time.

use std::fs::{self, File};
use std::io::{BufReader, BufWriter, Read, Write};
use std::path::Path;

use sha2::{Digest, Sha256};

use crate::error::{AtPath, Result};
use crate::paths;

/// Bytes in a MiB.
pub const MIB: usize = 1 << 20;

/// `mib` MiB of pseudo-random bytes from a seed.
#[must_use]
pub fn bytes(mib: usize, seed: u64) -> Vec<u8> {
    let mut random = fastrand::Rng::with_seed(seed);
    let mut bytes = vec![0; mib * MIB];
    random.fill(&mut bytes);
    bytes
}

/// Writes an image.
///
/// # Errors
/// [`Error::File`](crate::Error::File).
pub fn write(path: &Path, contents: &[u8]) -> Result<()> {
    let mut file = BufWriter::new(File::create(path).at("create", path)?);
    file.write_all(contents)
        .and_then(|()| file.flush())
        .at("write", path)
}

/// SHA-256 of bytes, as `sha256sum` prints it.
#[must_use]
pub fn sha256(contents: &[u8]) -> String {
    paths::hex(&Sha256::digest(contents))
}

/// SHA-256 of a file, as `sha256sum` prints it.
///
/// # Errors
/// [`Error::File`](crate::Error::File).
pub fn sha256_of_file(path: &Path) -> Result<String> {
    let size = fs::metadata(path).at("look at", path)?.len();
    let mut contents = Vec::with_capacity(usize::try_from(size).unwrap_or_default());
    let mut file = BufReader::new(File::open(path).at("open", path)?);
    file.read_to_end(&mut contents).at("read", path)?;
    Ok(sha256(&contents))
}

/// What the guest makes of an image: its first half becomes its second half with every byte one higher.
#[must_use]
pub fn after_guest_write(image: &[u8]) -> Vec<u8> {
    let second = &image[image.len() / 2..];
    second
        .iter()
        .map(|byte| byte.wrapping_add(1))
        .chain(second.iter().copied())
        .collect()
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn images_are_repeatable_and_differ_by_seed() {
        assert_eq!(bytes(1, 7), bytes(1, 7));
        assert_ne!(bytes(1, 7), bytes(1, 8));
    }

    #[test]
    fn hash_is_that_of_sha256sum() {
        assert_eq!(sha256(b"abc")[..16], *"ba7816bf8f01cfea");
    }

    #[test]
    fn guest_write_changes_the_first_half_only() {
        assert_eq!(after_guest_write(&[1, 2, 254, 255]), [255, 0, 254, 255]);
    }
}
