// SPDX-License-Identifier: Apache-2.0 OR BSD-3-Clause

//! Initial RAM file systems: archives in cpio's `newc` format
//! (Linux Documentation/driver-api/early-userspace/buffer-format.rst).

use std::fs::{self, File};
use std::io::{BufWriter, Write};
use std::path::{Path, PathBuf};

use cpio::newc::{Builder, ModeFileType, trailer};

use crate::error::{AtPath, Error, Result};

/// The files of an archive, in the order in which they were added.
#[derive(Debug, Default)]
pub struct Initramfs {
    entries: Vec<Entry>,
}

#[derive(Debug)]
struct Entry {
    name: String,
    kind: Kind,
}

#[derive(Debug)]
enum Kind {
    Folder,
    Program(Vec<u8>),
    Console,
}

impl Initramfs {
    /// An archive with `/init`, busybox and a console device.
    ///
    /// # Errors
    /// [`Error::File`] if busybox cannot be read.
    pub fn with_busybox(busybox: &Path, init: &str) -> Result<Self> {
        let mut archive = Self::default();
        archive.add_file("init", init.as_bytes().to_vec());
        archive.add_path("bin/busybox", busybox)?;
        archive.add_console();
        Ok(archive)
    }

    /// An archive with a static program as `/init`, and a console device.
    ///
    /// # Errors
    /// [`Error::File`] if the program cannot be read.
    pub fn with_init(program: &Path) -> Result<Self> {
        let mut archive = Self::default();
        archive.add_path("init", program)?;
        archive.add_console();
        Ok(archive)
    }

    fn add_console(&mut self) {
        self.entries.push(Entry {
            name: "dev".into(),
            kind: Kind::Folder,
        });
        self.entries.push(Entry {
            name: "dev/console".into(),
            kind: Kind::Console,
        });
    }

    /// Adds an executable file with these contents, and its parent folders.
    pub fn add_file(&mut self, name: &str, contents: Vec<u8>) {
        let parents: Vec<PathBuf> = Path::new(name)
            .ancestors()
            .skip(1)
            .map(PathBuf::from)
            .collect();
        for parent in parents
            .iter()
            .rev()
            .filter(|parent| !parent.as_os_str().is_empty())
        {
            let name = parent.to_string_lossy().into_owned();
            if !self.entries.iter().any(|entry| entry.name == name) {
                self.entries.push(Entry {
                    name,
                    kind: Kind::Folder,
                });
            }
        }
        self.entries.push(Entry {
            name: name.into(),
            kind: Kind::Program(contents),
        });
    }

    /// Adds a copy of a file.
    ///
    /// # Errors
    /// [`Error::File`] if it cannot be read.
    pub fn add_path(&mut self, name: &str, source: &Path) -> Result<()> {
        self.add_file(name, fs::read(source).at("read", source)?);
        Ok(())
    }

    /// Writes the archive, uncompressed.
    ///
    /// # Errors
    /// [`Error::File`]; [`Error::Malformed`] for a file of 4 GiB or more.
    pub fn write(&self, path: &Path) -> Result<()> {
        let mut output = BufWriter::new(File::create(path).at("create", path)?);
        for (number, entry) in (1..).zip(&self.entries) {
            let builder = Builder::new(&entry.name).ino(number);
            let (builder, contents) = match &entry.kind {
                Kind::Folder => (
                    builder
                        .mode(0o755)
                        .set_mode_file_type(ModeFileType::Directory),
                    &[][..],
                ),
                Kind::Program(contents) => (
                    builder
                        .mode(0o755)
                        .set_mode_file_type(ModeFileType::Regular),
                    &contents[..],
                ),
                Kind::Console => {
                    let device = builder.mode(0o600).set_mode_file_type(ModeFileType::Char);
                    (device.rdev_major(5).rdev_minor(1), &[][..])
                }
            };
            let length = u32::try_from(contents.len()).map_err(|_| Error::Malformed {
                path: entry.name.clone().into(),
                reason: "too large for a cpio archive".into(),
            })?;
            let mut writer = builder.write(&mut output, length);
            writer.write_all(contents).at("write", path)?;
            writer.finish().at("write", path)?;
        }
        trailer(&mut output)
            .at("write", path)?
            .flush()
            .at("write", path)
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn folders_come_before_their_files_and_once() {
        let folder = tempfile::tempdir().unwrap();
        let mut archive = Initramfs::default();
        archive.add_file("lib/modules/a.ko", vec![7; 5]);
        archive.add_file("lib/modules/b.ko", vec![8; 4096]);
        let path = folder.path().join("archive");
        archive.write(&path).unwrap();
        let read = fs::read(&path).unwrap();
        let mut names = Vec::new();
        let mut rest = &read[..];
        loop {
            let entry = cpio::NewcReader::new(rest).unwrap();
            if entry.entry().is_trailer() {
                break;
            }
            names.push((entry.entry().name().to_string(), entry.entry().file_size()));
            rest = entry.finish().unwrap();
        }
        let expected = [
            ("lib", 0),
            ("lib/modules", 0),
            ("lib/modules/a.ko", 5),
            ("lib/modules/b.ko", 4096),
        ];
        assert_eq!(names, expected.map(|(name, size)| (name.to_string(), size)));
    }
}
