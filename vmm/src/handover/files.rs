// SPDX-License-Identifier: Apache-2.0 OR BSD-3-Clause

//! The files of a handover: each is used once, and is what it is used for, as far as that shows.

use std::fs::{self, File, Metadata};
use std::io;
use std::os::fd::{AsRawFd, OwnedFd};
use std::os::unix::fs::{FileTypeExt, MetadataExt};
use std::path::Path;

use address::Bdf;
use iommufd_backend::PciSysfs;
use rustix::fs::{major, minor};

use super::error::{HandoverError, Refusal};

/// Where sysfs has the number of `/dev/iommu`.
const IOMMU: &str = "/sys/class/misc/iommu/dev";

/// Files by their numbers.
#[derive(Debug)]
pub(crate) struct Files(Vec<Option<OwnedFd>>);

impl Files {
    /// All that came with a packet.
    pub fn new(files: Vec<OwnedFd>) -> Self {
        Self(files.into_iter().map(Some).collect())
    }

    /// File `number`, which is to be `what`.
    ///
    /// # Errors
    /// [`HandoverError::Handover`] if there is none, or it is in use.
    pub fn take(&mut self, number: usize, what: &str) -> Result<OwnedFd, HandoverError> {
        let found = self.0.get_mut(number).and_then(Option::take);
        found.ok_or_else(|| {
            let text = format!("{what}: there is no file number {number}, or it is used twice");
            HandoverError::wrong(text)
        })
    }

    /// `/dev/iommu`
    ///
    /// # Errors
    /// [`HandoverError::Handover`]
    pub fn iommufd(&mut self, number: usize) -> Result<OwnedFd, HandoverError> {
        let what = "/dev/iommu";
        let file = self.take(number, what)?;
        let known: Vec<_> = fs::read_to_string(IOMMU).into_iter().collect();
        character_device(file, what, &known)
    }

    /// The character device of `bdf`.
    ///
    /// # Errors
    /// [`HandoverError::Handover`]
    pub fn device(
        &mut self,
        number: usize,
        bdf: Bdf,
        sysfs: &PciSysfs,
    ) -> Result<OwnedFd, HandoverError> {
        let what = format!("the character device of {bdf}");
        let file = self.take(number, &what)?;
        let directory = sysfs.directory(bdf).map(|path| path.join("vfio-dev"));
        let known = directory.map_or_else(|_| Vec::new(), |path| numbers_below(&path));
        character_device(file, &what, &known)
    }

    /// A pidfd.
    ///
    /// # Errors
    /// [`HandoverError::Handover`] if it is another kind of file.
    pub fn process(&mut self, number: usize, what: &str) -> Result<OwnedFd, HandoverError> {
        let file = self.take(number, what)?;
        // Only a pidfd has this line (Linux fs/pidfs.c pidfd_show_fdinfo).
        let info = fs::read_to_string(format!("/proc/self/fdinfo/{}", file.as_raw_fd()));
        let info = info.map_err(|source| Refusal::Examine {
            what: what.to_owned(),
            source,
        })?;
        match info.lines().any(|line| line.starts_with("Pid:")) {
            true => Ok(file),
            false => Err(HandoverError::wrong(format!(
                "{what}: file number {number} is not a pidfd"
            ))),
        }
    }

    /// A file of memory, and its length.
    ///
    /// # Errors
    /// [`HandoverError::Handover`] if it is another kind of file, or has pages of less than `page_size` bytes.
    pub fn memory(&mut self, number: usize, page_size: u64) -> Result<(File, u64), HandoverError> {
        let what = "guest memory";
        let file = File::from(self.take(number, what)?);
        let found = examined(&file, what)?;
        // Hugetlbfs has the size of its pages there (fs/hugetlbfs/inode.c hugetlbfs_fill_super).
        match found.is_file() && found.blksize() >= page_size {
            true => Ok((file, found.len())),
            false => Err(HandoverError::wrong(format!(
                "{what}: file number {number} is not a file with pages of {page_size} bytes"
            ))),
        }
    }

    /// Nothing is left.
    ///
    /// # Errors
    /// [`HandoverError::Handover`] if a file has no use.
    pub fn finish(&self) -> Result<(), HandoverError> {
        match self.0.iter().position(Option::is_some) {
            None => Ok(()),
            Some(number) => Err(HandoverError::wrong(format!(
                "file number {number} has no use"
            ))),
        }
    }
}

fn examined(file: &File, what: &str) -> Result<Metadata, Refusal> {
    file.metadata().map_err(|source| Refusal::Examine {
        what: what.to_owned(),
        source,
    })
}

/// The numbers of all devices that sysfs lists in `directory`.
fn numbers_below(directory: &Path) -> Vec<String> {
    let entries = fs::read_dir(directory).into_iter().flatten().flatten();
    let number = |entry: fs::DirEntry| -> io::Result<String> {
        fs::read_to_string(entry.path().join("dev"))
    };
    entries.filter_map(|entry| number(entry).ok()).collect()
}

/// `file`, if it is a character device with one of the numbers that sysfs has `known`, as far as it shows any.
fn character_device(file: OwnedFd, what: &str, known: &[String]) -> Result<OwnedFd, HandoverError> {
    let file = File::from(file);
    let found = examined(&file, what)?;
    let number = format!("{}:{}", major(found.rdev()), minor(found.rdev()));
    let is_known = known.is_empty() || known.iter().any(|known| known.trim() == number);
    match found.file_type().is_char_device() && is_known {
        true => Ok(file.into()),
        false => Err(HandoverError::wrong(format!("a file is not {what}"))),
    }
}

#[cfg(test)]
mod tests {
    use std::fs::File;

    use super::*;

    fn files(paths: &[&str]) -> Files {
        let open = |path: &&str| File::open(path).unwrap().into();
        Files::new(paths.iter().map(open).collect())
    }

    #[test]
    fn each_file_is_used_once() {
        let mut files = files(&["/dev/null", "/dev/zero"]);
        files.take(1, "it").unwrap();
        for number in [1, 2, usize::MAX] {
            let text = files.take(number, "it").unwrap_err().to_string();
            assert!(text.contains(&format!("it: there is no file number {number}")));
        }
        let text = files.finish().unwrap_err().to_string();
        assert!(text.contains("file number 0 has no use"), "{text}");
        files.take(0, "it").unwrap();
        files.finish().unwrap();
    }

    #[test]
    fn a_device_is_the_one_that_sysfs_lists() {
        let root = tempfile::tempdir().unwrap();
        let sysfs = PciSysfs::at(&root.path().join("sys"));
        let bdf = "01:00.0".parse().unwrap();
        let node = root
            .path()
            .join("sys/bus/pci/devices/0000:01:00.0/vfio-dev/noiommu-vfio0");
        let device = |path| files(&[path]).device(0, bdf, &sysfs).is_ok();
        assert!(device("/dev/null"), "sysfs lists none");
        assert!(!device("/proc/self/stat"));
        fs::create_dir_all(&node).unwrap();
        fs::write(node.join("dev"), "1:3\n").unwrap();
        assert!(device("/dev/null"));
        assert!(!device("/dev/zero"));
    }

    #[test]
    fn a_process_is_a_pidfd() {
        let own = rustix::process::getpid();
        let pidfd = rustix::process::pidfd_open(own, rustix::process::PidfdFlags::empty()).unwrap();
        let mut files = Files::new(vec![pidfd, File::open("/dev/null").unwrap().into()]);
        files.process(0, "it").unwrap();
        let text = files.process(1, "it").unwrap_err().to_string();
        assert!(text.contains("file number 1 is not a pidfd"), "{text}");
    }

    #[test]
    fn memory_is_a_file_with_pages() {
        let memory = |path, page_size| files(&[path]).memory(0, page_size).is_ok();
        let file = tempfile::NamedTempFile::new().unwrap();
        let path = file.path().to_str().unwrap();
        assert!(memory(path, 4096));
        assert!(!memory(path, 2 << 20));
        assert!(!memory("/dev/null", 4096));
    }
}
