// SPDX-License-Identifier: Apache-2.0 OR BSD-3-Clause

//! Which versions the testbed is made of.

use std::fs;
use std::ops::RangeBounds;
use std::path::PathBuf;

use super::apt::Apt;
use super::arch::Arch;
use crate::error::{AtPath, Error, Result};
use crate::paths;
use crate::shell;

/// The oldest kernel with `IOMMU_IOAS_NOIOMMU_GET_PA`.
const KERNEL_OLDEST: (u32, u32) = (7, 3);

/// A package and its version.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Package {
    /// Name.
    pub name: String,
    /// Version, as Debian writes it.
    pub version: String,
}

/// The packages that were chosen.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Selection {
    /// What the test machine and its guests are.
    pub arch: Arch,
    /// Source of the test machine's kernel.
    pub kernel_source: Package,
    /// The guest's kernel: the stock kernel of this machine's release.
    pub guest_kernel: Package,
    /// Another guest's kernel: that of Debian 11, which is older than Linux 5.13.
    pub old_guest_kernel: Package,
    /// The guest's and the test machine's first programs.
    pub busybox: Package,
    /// Another guest's kernel: that of Debian 13. A selection of the time before has none.
    pub new_guest_kernel: Option<Package>,
    /// Source of the test machine's older kernel. A selection of the time before has none.
    pub old_kernel_source: Option<Package>,
}

impl Selection {
    /// Chooses the newest versions on offer. Needs the network.
    ///
    /// # Errors
    /// If apt cannot fetch its lists or a package is not on offer.
    pub fn choose(arch: Arch) -> Result<Self> {
        let machine = Apt::of_machine(arch)?;
        let sources = Apt::of_kernel_sources()?;
        let source = newest_source(&sources.names("linux-source-")?, KERNEL_OLDEST..);
        let source = source.ok_or_else(|| {
            Error::Usage("No package with kernel source 7.3 or later is available".into())
        })?;
        let mut selection = Self {
            arch,
            kernel_source: package(&sources, &source)?,
            guest_kernel: stock_kernel(arch, &machine)?,
            old_guest_kernel: stock_kernel(arch, &Apt::of_debian_11(arch)?)?,
            busybox: package(&machine, "busybox-static")?,
            new_guest_kernel: None,
            old_kernel_source: None,
        };
        for package in selection.packages() {
            report(package);
        }
        selection.complete()?;
        Ok(selection)
    }

    /// Chooses what a selection of the time before has not.
    ///
    /// # Errors
    /// Those of [`choose`](Self::choose).
    pub fn complete(&mut self) -> Result<()> {
        if self.new_guest_kernel.is_none() {
            let package = stock_kernel(self.arch, &Apt::of_debian_13(self.arch)?)?;
            report(&package);
            self.new_guest_kernel = Some(package);
        }
        if self.old_kernel_source.is_none() {
            let package = old_source()?;
            report(&package);
            self.old_kernel_source = Some(package);
        }
        Ok(())
    }

    /// The selection noted in the cache, if there is one.
    ///
    /// # Errors
    /// [`Error::File`] if it cannot be read.
    pub fn load(arch: Arch) -> Result<Option<Self>> {
        let path = path(arch)?;
        if !path.exists() {
            return Ok(None);
        }
        Ok(parse(arch, &fs::read_to_string(&path).at("read", &path)?))
    }

    /// Notes the selection in the cache.
    ///
    /// # Errors
    /// [`Error::File`].
    pub fn save(&self) -> Result<()> {
        let lines = self
            .packages()
            .map(|package| format!("{} {}\n", package.name, package.version));
        let text: String = lines.collect();
        paths::publish_file(&path(self.arch)?, |partial| {
            fs::write(partial, text).at("write", partial)
        })
    }

    fn packages(&self) -> impl Iterator<Item = &Package> {
        [
            &self.kernel_source,
            &self.guest_kernel,
            &self.old_guest_kernel,
            &self.busybox,
        ]
        .into_iter()
        .chain(&self.new_guest_kernel)
        .chain(&self.old_kernel_source)
    }
}

fn report(package: &Package) {
    shell::progress(&format!("chosen: {} {}", package.name, package.version));
}

/// The source of Debian 13's kernel.
fn old_source() -> Result<Package> {
    let sources = Apt::of_debian_13(Arch::default())?;
    let source = newest_source(&sources.names("linux-source-")?, ..KERNEL_OLDEST)
        .ok_or_else(|| Error::Usage("Debian 13 offers no package with kernel source".into()))?;
    package(&sources, &source)
}

fn package(apt: &Apt, name: &str) -> Result<Package> {
    Ok(Package {
        name: name.into(),
        version: apt.candidate(name)?,
    })
}

/// The kernel image that the meta package of these suites depends on.
fn stock_kernel(arch: Arch, apt: &Apt) -> Result<Package> {
    let meta = format!("linux-image-{}", arch.of_debian());
    let dependencies = apt.dependencies(&meta, &apt.candidate(&meta)?)?;
    let image = dependencies
        .iter()
        .find(|name| name.starts_with("linux-image-"))
        .ok_or_else(|| Error::Usage(format!("The package {meta} depends on no kernel image")))?;
    package(apt, image)
}

fn path(arch: Arch) -> Result<PathBuf> {
    Ok(paths::cache()?.join(match arch {
        Arch::X86_64 => "selection".to_owned(),
        Arch::Aarch64 => format!("selection-{}", arch.name()),
    }))
}

fn parse(arch: Arch, text: &str) -> Option<Selection> {
    let mut packages = text.lines().map(|line| {
        let (name, version) = line.split_once(' ')?;
        Some(Package {
            name: name.into(),
            version: version.into(),
        })
    });
    Some(Selection {
        arch,
        kernel_source: packages.next()??,
        guest_kernel: packages.next()??,
        old_guest_kernel: packages.next()??,
        busybox: packages.next()??,
        new_guest_kernel: packages.next().flatten(),
        old_kernel_source: packages.next().flatten(),
    })
}

/// The package `linux-source-X.Y` with the highest X.Y of those in `versions`.
fn newest_source(names: &[String], versions: impl RangeBounds<(u32, u32)>) -> Option<String> {
    let version = |name: &String| {
        let (major, minor) = name.strip_prefix("linux-source-")?.split_once('.')?;
        Some((major.parse::<u32>().ok()?, minor.parse::<u32>().ok()?))
    };
    let offers = names
        .iter()
        .filter(|name| version(name).is_some_and(|version| versions.contains(&version)));
    offers.max_by_key(|name| version(name)).cloned()
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn newest_source_is_by_number_and_in_range() {
        let names = |list: &[&str]| list.iter().map(ToString::to_string).collect::<Vec<_>>();
        let offers = names(&[
            "linux-source-7.3",
            "linux-source-7.10",
            "linux-source-6.12",
            "linux-source-7.3-rt",
        ]);
        let new = |names: &[String]| newest_source(names, KERNEL_OLDEST..);
        let old = |names: &[String]| newest_source(names, ..KERNEL_OLDEST);
        assert_eq!(new(&offers).as_deref(), Some("linux-source-7.10"));
        assert_eq!(old(&offers).as_deref(), Some("linux-source-6.12"));
        assert_eq!(
            new(&names(&["linux-source-7.2", "linux-source-6.12"])),
            None
        );
        assert_eq!(old(&names(&["linux-source-7.3", "linux-source"])), None);
    }

    #[test]
    fn damaged_note_is_no_selection() {
        let whole = "linux-source-7.3 7.3.4-1\nlinux-image-6.1.0-56-amd64 6.1.192-2\n\
                     linux-image-5.10.0-32-amd64 5.10.223-1\nbusybox-static 1:1.35\n";
        let older = parse(Arch::X86_64, whole).unwrap();
        assert_eq!(older.busybox.version, "1:1.35");
        assert_eq!(older.new_guest_kernel, None);
        let newer = format!("{whole}linux-image-6.12.1-amd64 6.12.1-1\n");
        let parsed = parse(Arch::X86_64, &newer).unwrap();
        assert_eq!(parsed.new_guest_kernel.unwrap().version, "6.12.1-1");
        assert_eq!(parsed.old_kernel_source, None);
        let newest = format!("{newer}linux-source-6.12 6.12.2-1\n");
        let parsed = parse(Arch::X86_64, &newest).unwrap();
        assert_eq!(parsed.old_kernel_source.unwrap().version, "6.12.2-1");
        assert_eq!(
            parse(Arch::X86_64, "linux-source-7.3 7.3.4-1\nlinux-im"),
            None
        );
    }
}
