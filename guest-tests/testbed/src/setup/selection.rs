// SPDX-License-Identifier: Apache-2.0 OR BSD-3-Clause

//! Which versions the testbed is made of.

use std::fs;
use std::path::PathBuf;

use super::apt::Apt;
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
    /// Source of the test machine's kernel.
    pub kernel_source: Package,
    /// The guest's kernel: the stock kernel of this machine's release.
    pub guest_kernel: Package,
    /// Another guest's kernel: that of Debian 11, which is older than Linux 5.13.
    pub old_guest_kernel: Package,
    /// The guest's and the test machine's first programs.
    pub busybox: Package,
}

impl Selection {
    /// Chooses the newest versions on offer. Needs the network.
    ///
    /// # Errors
    /// If apt cannot fetch its lists or a package is not on offer.
    pub fn choose() -> Result<Self> {
        let machine = Apt::of_machine()?;
        let sources = Apt::of_kernel_sources()?;
        let source = newest_source(&sources.names("linux-source-")?).ok_or_else(|| {
            Error::Usage("No package with kernel source 7.3 or later is available".into())
        })?;
        let selection = Self {
            kernel_source: package(&sources, &source)?,
            guest_kernel: stock_kernel(&machine)?,
            old_guest_kernel: stock_kernel(&Apt::of_debian_11()?)?,
            busybox: package(&machine, "busybox-static")?,
        };
        for package in selection.packages() {
            shell::progress(&format!("chosen: {} {}", package.name, package.version));
        }
        Ok(selection)
    }

    /// The selection noted in the cache, if there is one.
    ///
    /// # Errors
    /// [`Error::File`] if it cannot be read.
    pub fn load() -> Result<Option<Self>> {
        let path = path()?;
        if !path.exists() {
            return Ok(None);
        }
        Ok(parse(&fs::read_to_string(&path).at("read", &path)?))
    }

    /// Notes the selection in the cache.
    ///
    /// # Errors
    /// [`Error::File`].
    pub fn save(&self) -> Result<()> {
        let lines = self
            .packages()
            .map(|package| format!("{} {}\n", package.name, package.version));
        paths::publish_file(&path()?, |partial| {
            fs::write(partial, lines.concat()).at("write", partial)
        })
    }

    fn packages(&self) -> [&Package; 4] {
        [
            &self.kernel_source,
            &self.guest_kernel,
            &self.old_guest_kernel,
            &self.busybox,
        ]
    }
}

fn package(apt: &Apt, name: &str) -> Result<Package> {
    Ok(Package {
        name: name.into(),
        version: apt.candidate(name)?,
    })
}

/// The kernel image that the meta package of these suites depends on.
fn stock_kernel(apt: &Apt) -> Result<Package> {
    const META: &str = "linux-image-amd64";
    let dependencies = apt.dependencies(META, &apt.candidate(META)?)?;
    let image = dependencies
        .iter()
        .find(|name| name.starts_with("linux-image-"))
        .ok_or_else(|| Error::Usage(format!("The package {META} depends on no kernel image")))?;
    package(apt, image)
}

fn path() -> Result<PathBuf> {
    Ok(paths::cache()?.join("selection"))
}

fn parse(text: &str) -> Option<Selection> {
    let mut packages = text.lines().map(|line| {
        let (name, version) = line.split_once(' ')?;
        Some(Package {
            name: name.into(),
            version: version.into(),
        })
    });
    Some(Selection {
        kernel_source: packages.next()??,
        guest_kernel: packages.next()??,
        old_guest_kernel: packages.next()??,
        busybox: packages.next()??,
    })
}

/// The package `linux-source-X.Y` with the highest X.Y of at least [`KERNEL_OLDEST`].
fn newest_source(names: &[String]) -> Option<String> {
    let version = |name: &String| {
        let (major, minor) = name.strip_prefix("linux-source-")?.split_once('.')?;
        Some((major.parse::<u32>().ok()?, minor.parse::<u32>().ok()?))
    };
    let offers = names
        .iter()
        .filter(|name| version(name).is_some_and(|version| version >= KERNEL_OLDEST));
    offers.max_by_key(|name| version(name)).cloned()
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn newest_source_is_by_number_and_never_too_old() {
        let names = |list: &[&str]| list.iter().map(ToString::to_string).collect::<Vec<_>>();
        let offers = names(&[
            "linux-source-7.3",
            "linux-source-7.10",
            "linux-source-6.12",
            "linux-source-7.3-rt",
        ]);
        assert_eq!(newest_source(&offers).as_deref(), Some("linux-source-7.10"));
        assert_eq!(
            newest_source(&names(&["linux-source-7.2", "linux-source-6.12"])),
            None
        );
    }

    #[test]
    fn damaged_note_is_no_selection() {
        let whole = "linux-source-7.3 7.3.4-1\nlinux-image-6.1.0-56-amd64 6.1.192-2\n\
                     linux-image-5.10.0-32-amd64 5.10.223-1\nbusybox-static 1:1.35\n";
        assert_eq!(parse(whole).unwrap().busybox.version, "1:1.35");
        assert_eq!(parse("linux-source-7.3 7.3.4-1\nlinux-im"), None);
    }
}
