// SPDX-License-Identifier: Apache-2.0 OR BSD-3-Clause

//! Debian packages from suites that are not in the machine's own sources.
//!
//! apt runs with separate package lists and cache (`apt-get(8)`, option `-o`), so the machine's
//! set-up under /etc/apt is neither used nor changed; signatures are checked against Debian's
//! keyring as ever.

use std::ffi::OsString;
use std::fs;
use std::path::{Path, PathBuf};
use std::process::Command;

use super::arch::Arch;
use crate::error::{AtPath, Error, Result};
use crate::paths;
use crate::shell::{self, progress};

const KEYRING: &str = "/usr/share/keyrings/debian-archive-keyring.gpg";
const ARCHIVE: &str = "http://deb.debian.org/debian";
const SECURITY: &str = "http://deb.debian.org/debian-security";

/// A set of suites with separate package lists, for packages of one architecture.
#[derive(Debug)]
pub struct Apt {
    folder: PathBuf,
    arch: Arch,
}

impl Apt {
    /// The release of this machine with its updates and backports. Fetches the package lists.
    pub fn of_machine(arch: Arch) -> Result<Self> {
        let codename = codename()?;
        let suites =
            ["", "-updates", "-backports"].map(|suffix| (ARCHIVE, codename.clone() + suffix));
        let security = (SECURITY, format!("{codename}-security"));
        Self::open(arch, "machine", suites.into_iter().chain([security]))
    }

    /// The suites that offer kernel sources newer than any release. Fetches the package lists.
    pub fn of_kernel_sources() -> Result<Self> {
        Self::open(
            Arch::default(),
            "kernel-sources",
            [(ARCHIVE, "trixie-backports".to_string())],
        )
    }

    /// Debian 11, whose kernel gives its first MiB to drivers. Fetches the package lists.
    pub fn of_debian_11(arch: Arch) -> Result<Self> {
        Self::open(arch, "debian-11", [(ARCHIVE, "bullseye".to_string())])
    }

    /// Debian 13. Fetches the package lists.
    pub fn of_debian_13(arch: Arch) -> Result<Self> {
        Self::open(arch, "debian-13", [(ARCHIVE, "trixie".to_string())])
    }

    /// Sources of Debian 13's packages. Fetches the package lists.
    pub fn of_sources() -> Result<Self> {
        let suites = [(ARCHIVE, "trixie".to_string())];
        Self::open_kind("deb-src", Arch::default(), "sources", suites)
    }

    fn open(
        arch: Arch,
        name: &str,
        suites: impl IntoIterator<Item = (&'static str, String)>,
    ) -> Result<Self> {
        Self::open_kind("deb", arch, name, suites)
    }

    fn open_kind(
        kind: &str,
        arch: Arch,
        name: &str,
        suites: impl IntoIterator<Item = (&'static str, String)>,
    ) -> Result<Self> {
        let name = match arch {
            Arch::X86_64 => name.to_owned(),
            Arch::Aarch64 => format!("{name}-{}", arch.name()),
        };
        let apt = Self {
            folder: paths::cache()?.join("apt").join(&name),
            arch,
        };
        for folder in ["lists/partial", "cache/archives/partial", "parts"] {
            paths::create_folder(&apt.folder.join(folder))?;
        }
        let lines: String = suites
            .into_iter()
            .map(|(archive, suite)| {
                format!("{kind} [signed-by={KEYRING}] {archive} {suite} main\n")
            })
            .collect();
        let list = apt.folder.join("sources.list");
        fs::write(&list, lines).at("write", &list)?;
        progress(&format!("fetching package lists ({name}; a few seconds)"));
        shell::run(apt.command("apt-get").args(["-qq", "update"]))?;
        Ok(apt)
    }

    /// Names of the packages on offer that begin with `prefix`.
    pub fn names(&self, prefix: &str) -> Result<Vec<String>> {
        let names = shell::run(self.command("apt-cache").args(["pkgnames", prefix]))?;
        Ok(names.lines().map(String::from).collect())
    }

    /// The version of a package that apt would install; backports only count for what no other suite has.
    pub fn candidate(&self, package: &str) -> Result<String> {
        let policy = shell::run(self.command("apt-cache").args(["policy", package]))?;
        candidate(&policy)
            .ok_or_else(|| Error::Usage(format!("No suite has the package {package}")))
    }

    /// The packages that a package depends on.
    pub fn dependencies(&self, package: &str, version: &str) -> Result<Vec<String>> {
        let spec = format!("{package}={version}");
        let record =
            shell::run(
                self.command("apt-cache")
                    .args(["show", "--no-all-versions", &spec]),
            )?;
        Ok(depends_field(&record))
    }

    /// Downloads the source of a package and unpacks it into `target`, without Debian's changes.
    pub fn source(&self, package: &str, target: &Path) -> Result<()> {
        progress(&format!(
            "downloading the source of {package} (seconds to minutes, depending on the network)"
        ));
        let folder = tempfile::tempdir_in(&self.folder).at("create a folder in", &self.folder)?;
        shell::run(
            self.command("apt-get")
                .args(["-qq", "--download-only", "source", package])
                .current_dir(folder.path()),
        )?;
        let archive = downloaded(folder.path(), ".orig.tar.xz")?;
        shell::unpack(&archive, target)
    }

    /// Downloads one package and unpacks it into `target`, without installing it.
    pub fn unpack(&self, package: &str, version: &str, target: &Path) -> Result<()> {
        progress(&format!(
            "downloading {package} {version} (seconds to minutes, depending on the network)"
        ));
        let folder = tempfile::tempdir_in(&self.folder).at("create a folder in", &self.folder)?;
        let spec = format!("{package}={version}");
        shell::run(
            self.command("apt-get")
                .args(["-qq", "download", &spec])
                .current_dir(folder.path()),
        )?;
        let file = downloaded(folder.path(), ".deb")?;
        let arguments = [OsString::from("-x"), file.into(), target.into()];
        shell::run(&mut shell::command("dpkg", arguments)).map(drop)
    }

    /// Installs packages on the machine, from backports if so asked. Needs root.
    pub fn install(&self, packages: &[&str], from_backports: bool) -> Result<()> {
        progress(&format!(
            "installing {} (about 15 seconds)",
            packages.join(" ")
        ));
        let mut command = self.command("apt-get");
        command.env("DEBIAN_FRONTEND", "noninteractive");
        command.args(["-qq", "install", "--yes", "--no-install-recommends"]);
        if from_backports {
            command.arg(format!("--target-release={}-backports", codename()?));
        }
        shell::run(command.args(packages)).map(drop)
    }

    fn command(&self, program: &str) -> Command {
        let folder = self.folder.display();
        let mut command = Command::new(program);
        command.env("LC_ALL", "C");
        command.args([
            format!("-oDir::Etc::SourceList={folder}/sources.list"),
            format!("-oDir::Etc::SourceParts={folder}/parts"),
            format!("-oDir::State::Lists={folder}/lists"),
            format!("-oDir::Cache={folder}/cache"),
            "-oAPT::Sandbox::User=root".to_string(),
        ]);
        // Packages of another architecture are unpacked only; apt takes it for the machine's own.
        if self.arch != Arch::default() {
            let name = self.arch.of_debian();
            command.args([
                format!("-oAPT::Architecture={name}"),
                format!("-oAPT::Architectures={name}"),
            ]);
        }
        command
    }
}

/// The file in `folder` whose name ends so.
fn downloaded(folder: &Path, end: &str) -> Result<PathBuf> {
    let files = fs::read_dir(folder).at("read", folder)?;
    let mut paths = files.filter_map(|entry| entry.ok().map(|entry| entry.path()));
    paths
        .find(|path| path.to_string_lossy().ends_with(end))
        .ok_or_else(|| Error::Usage(format!("apt downloaded no file with {end}")))
}

/// The Debian release of this machine, such as `bookworm`.
///
/// # Errors
/// [`Error::Missing`] on anything but Debian.
pub fn codename() -> Result<String> {
    let path = "/etc/os-release";
    let text = fs::read_to_string(path).at("read", path)?;
    let field = |name: &str| {
        let line = text
            .lines()
            .find_map(|line| line.strip_prefix(name)?.strip_prefix('='))?;
        Some(line.trim_matches('"').to_string())
    };
    match (field("ID").as_deref(), field("VERSION_CODENAME")) {
        (Some("debian"), Some(codename)) => Ok(codename),
        _ => Err(Error::Missing {
            what: "Debian 12 or later, whose packages the testbed uses".into(),
            command: "run it in a Debian container".into(),
        }),
    }
}

/// The candidate in the answer of `apt-cache policy`.
fn candidate(policy: &str) -> Option<String> {
    let version = policy
        .lines()
        .find_map(|line| line.trim().strip_prefix("Candidate: "))?;
    (version != "(none)").then(|| version.to_string())
}

/// Package names in the `Depends` field of a package record.
fn depends_field(record: &str) -> Vec<String> {
    let field = record
        .lines()
        .find_map(|line| line.strip_prefix("Depends:"))
        .unwrap_or_default();
    let names = field
        .split(',')
        .filter_map(|part| part.split_whitespace().next());
    names.map(String::from).collect()
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn candidate_is_what_apt_would_install() {
        let text =
            "qemu:\n  Installed: (none)\n  Candidate: 1:7.2\n  Version table:\n     1:10.0 100\n";
        assert_eq!(candidate(text).as_deref(), Some("1:7.2"));
        assert_eq!(candidate("qemu:\n  Candidate: (none)\n"), None);
        assert_eq!(candidate(""), None);
    }

    #[test]
    fn dependencies_lose_their_versions() {
        let record = "Package: a\nDepends: linux-image-6.1.0-56-amd64 (= 6.1.192-2), kmod\n";
        assert_eq!(
            depends_field(record),
            ["linux-image-6.1.0-56-amd64", "kmod"]
        );
        assert!(depends_field("Package: a\n").is_empty());
    }
}
