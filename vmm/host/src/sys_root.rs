// SPDX-License-Identifier: Apache-2.0 OR BSD-3-Clause

//! Where the facts are read: the root of a machine's file trees.

use std::fs::{self, File};
use std::io::{self, Read};
use std::path::{Path, PathBuf};

use address::Bdf;
use iommufd_backend::hugepages::{HugepageSize, Pool};
use iommufd_backend::{Error, IoMem, PciSysfs};
use rustix::fs::{CWD, Dir, Mode, OFlags, openat};

/// Most of a file that is read: none of the kernel's texts is longer.
const MAX_LEN: u64 = 16 << 20;
/// A copy of /proc/iomem, which a process without CAP_SYS_ADMIN cannot read. Only root can write to its directory.
const MAP_COPY: &str = "run/pinvisor/iomem";
/// What the kernel makes of a text at once (fs/seq_file.c, fs/kernfs/file.c).
const PAGE: usize = 4096;

/// The root below which a machine's `/proc`, `/sys`, `/dev` and `/boot` are.
#[derive(Clone, Debug)]
pub struct SysRoot {
    root: PathBuf,
    pci: PciSysfs,
}

impl Default for SysRoot {
    fn default() -> Self {
        Self::at(Path::new("/"))
    }
}

impl SysRoot {
    /// The machine whose trees are below `root`, normally `/`.
    #[must_use]
    pub fn at(root: &Path) -> Self {
        Self {
            root: root.to_owned(),
            pci: PciSysfs::at(&root.join("sys")),
        }
    }

    /// Its PCI devices.
    #[must_use]
    pub fn pci(&self) -> &PciSysfs {
        &self.pci
    }

    /// Its map of physical addresses: the kernel's, or, if the kernel shows this process none, the copy that root left for
    /// such processes, if it did.
    ///
    /// # Errors
    /// Those of [`IoMem::read`].
    pub fn iomem(&self) -> Result<IoMem, Error> {
        match IoMem::read(&self.path("proc/iomem")) {
            Err(Error::AddressesHidden { .. }) if self.exists(MAP_COPY) => {
                log::debug!("/proc/iomem hides addresses: reading its copy /{MAP_COPY}");
                IoMem::read(&self.path(MAP_COPY))
            }
            map => map,
        }
    }

    /// Its pool of hugepages of `size`.
    ///
    /// # Errors
    /// Those of [`Pool::read`].
    pub fn hugepages(&self, size: HugepageSize) -> Result<Pool, Error> {
        Pool::read(&self.path("sys"), size)
    }

    /// The file or directory `name`, relative to the root.
    pub(crate) fn path(&self, name: impl AsRef<Path>) -> PathBuf {
        self.root.join(name)
    }

    pub(crate) fn exists(&self, name: &str) -> bool {
        self.path(name).exists()
    }

    /// The text of a file; characters that are none are replaced.
    pub(crate) fn text(&self, name: impl AsRef<Path>) -> io::Result<String> {
        // Files of /proc and /sys do not tell their lengths: most of their texts fit here, and take one read.
        let mut bytes = Vec::with_capacity(PAGE);
        // Unlike musl's, its `open` is one system call.
        let file = openat(CWD, self.path(name), OFlags::CLOEXEC, Mode::empty())?;
        File::from(file).take(MAX_LEN).read_to_end(&mut bytes)?;
        Ok(String::from_utf8_lossy(&bytes).into_owned())
    }

    /// The text of a file without the white space around it; empty if it cannot be read.
    pub(crate) fn word(&self, name: impl AsRef<Path>) -> String {
        self.text(name).unwrap_or_default().trim().to_owned()
    }

    /// The names in a directory, in order; none if it cannot be read.
    pub(crate) fn names(&self, directory: impl AsRef<Path>) -> Vec<String> {
        let flags = OFlags::DIRECTORY | OFlags::CLOEXEC;
        let opened = openat(CWD, self.path(directory), flags, Mode::empty());
        let mut names: Vec<String> = opened
            .and_then(Dir::new)
            .into_iter()
            .flatten()
            .flatten()
            .filter_map(|entry| entry.file_name().to_owned().into_string().ok())
            .filter(|name| name != "." && name != "..")
            .collect();
        names.sort_unstable();
        names
    }

    /// Where `name` really is, with all links followed.
    pub(crate) fn real(&self, name: impl AsRef<Path>) -> Option<PathBuf> {
        fs::canonicalize(self.path(name)).ok()
    }

    /// The directory of a PCI function, with all links followed.
    pub(crate) fn function(&self, bdf: Bdf) -> Option<PathBuf> {
        self.real(format!("sys/bus/pci/devices/{bdf}"))
    }
}

#[cfg(test)]
pub(crate) mod tests {
    use super::*;

    /// A machine made of files.
    #[derive(Debug)]
    pub(crate) struct Fake {
        pub dir: tempfile::TempDir,
        pub root: SysRoot,
    }

    impl Fake {
        pub fn new() -> Self {
            let dir = tempfile::tempdir().unwrap();
            let root = SysRoot::at(dir.path());
            Self { dir, root }
        }

        pub fn write(&self, name: &str, text: &str) {
            let path = self.dir.path().join(name);
            fs::create_dir_all(path.parent().unwrap()).unwrap();
            fs::write(path, text).unwrap();
        }

        pub fn directory(&self, name: &str) {
            fs::create_dir_all(self.dir.path().join(name)).unwrap();
        }

        /// A link `name` to `target`, both relative to the root.
        pub fn link(&self, name: &str, target: &str) {
            let path = self.dir.path().join(name);
            fs::create_dir_all(path.parent().unwrap()).unwrap();
            std::os::unix::fs::symlink(self.dir.path().join(target), path).unwrap();
        }

        /// An NVMe disk behind a root port, as sysfs shows one.
        pub fn disk(&self) -> Bdf {
            let real = "sys/devices/pci0000:00/0000:00:08.0/0000:01:00.0";
            for (name, text) in [
                ("class", "0x010802\n"),
                ("vendor", "0x1b36\n"),
                ("device", "0x0010\n"),
                ("reset_method", "flr bus\n"),
                (
                    "resource",
                    "0x00000000fe800000 0x00000000fe803fff 0x0000000000140204\n",
                ),
            ] {
                self.write(&format!("{real}/{name}"), text);
            }
            self.link("sys/bus/pci/devices/0000:01:00.0", real);
            self.directory("sys/bus/pci/drivers/nvme");
            "0000:01:00.0".parse().unwrap()
        }
    }

    #[test]
    fn a_copy_of_the_map_is_read_where_the_kernel_hides_its_own() {
        const HIDDEN: &str = "00000000-00000000 : System RAM\n";
        let fake = Fake::new();
        let start = || fake.root.iomem().map(|map| map.entries()[0].range.start.0);
        fake.write("proc/iomem", HIDDEN);
        assert!(matches!(start(), Err(Error::AddressesHidden { .. })));
        fake.write(MAP_COPY, "00001000-7fffffff : System RAM\n");
        assert_eq!(start().unwrap(), 0x1000);
        // What hides nothing comes first.
        fake.write("proc/iomem", "00002000-7fffffff : System RAM\n");
        assert_eq!(start().unwrap(), 0x2000);
        // A container's mask is an empty file.
        fake.write("proc/iomem", "");
        assert_eq!(start().unwrap(), 0x1000);
        fake.write(MAP_COPY, "noise\n");
        assert!(matches!(start(), Err(Error::Parse { path, .. }) if path.ends_with(MAP_COPY)));
        fake.write(MAP_COPY, HIDDEN);
        assert!(
            matches!(start(), Err(Error::AddressesHidden { path }) if path.ends_with(MAP_COPY))
        );
    }

    #[test]
    fn noise_is_read_as_text() {
        let fake = Fake::new();
        fs::write(fake.dir.path().join("x"), [0xff, b'a']).unwrap();
        assert_eq!(fake.root.word("x"), "\u{fffd}a");
        assert_eq!(fake.root.word("y"), "");
    }
}
