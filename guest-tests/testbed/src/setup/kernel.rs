// SPDX-License-Identifier: Apache-2.0 OR BSD-3-Clause

//! The test machine's kernel, in its flavours, built one after the other in one tree.

use std::fs::{self, File};
use std::io::{BufRead, BufReader, Write};
use std::path::{Path, PathBuf};
use std::process::{Command, Stdio};
use std::thread;
use std::time::{Duration, Instant};

use super::apt::Apt;
use super::not_set_up;
use super::selection::Selection;
use crate::error::{AtPath, Error, Result};
use crate::paths;
use crate::shell::{self, progress};

const BASE: &str = include_str!("../../kernel/base.config");
const FULL: &str = include_str!("../../kernel/full.config");

/// Changes whenever the steps that make a kernel do, so that kernels made otherwise are rebuilt.
const STEPS: &str = "tinyconfig, merge_config -m, olddefconfig, bzImage";

/// Interval of progress reports of a build.
const REPORT_EVERY: Duration = Duration::from_secs(20);

/// A kind of test-machine kernel.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Hash, clap::ValueEnum)]
pub enum Flavour {
    /// VFIO groups and character devices.
    Groups,
    /// Character devices only.
    NoGroups,
    /// No noiommu mode.
    NoNoiommu,
    /// No KVM, no `/dev/iommu`, no VFIO, no hugepages.
    Bare,
}

impl Flavour {
    /// All of them, in the order in which they are built.
    pub const ALL: [Self; 4] = [Self::Groups, Self::NoGroups, Self::NoNoiommu, Self::Bare];

    /// Its name on the command line.
    #[must_use]
    pub fn name(self) -> &'static str {
        match self {
            Self::Groups => "groups",
            Self::NoGroups => "no-groups",
            Self::NoNoiommu => "no-noiommu",
            Self::Bare => "bare",
        }
    }

    /// What building it takes on two cores, after the flavours before it: objects are shared.
    fn expected(self) -> &'static str {
        match self {
            Self::Groups => "7 minutes",
            Self::NoGroups | Self::NoNoiommu => "30 seconds",
            Self::Bare => "3 minutes",
        }
    }

    fn config(self) -> String {
        match self {
            Self::Groups => [BASE, FULL, include_str!("../../kernel/groups.config")].concat(),
            Self::NoGroups => [BASE, FULL, include_str!("../../kernel/no-groups.config")].concat(),
            Self::NoNoiommu => {
                [BASE, FULL, include_str!("../../kernel/no-noiommu.config")].concat()
            }
            Self::Bare => [BASE, include_str!("../../kernel/bare.config")].concat(),
        }
    }
}

/// The bzImage of a flavour in the cache.
///
/// # Errors
/// [`Error::Missing`] if the testbed is not set up.
pub fn installed(flavour: Flavour) -> Result<PathBuf> {
    let missing = || not_set_up(&format!("the test machine's kernel ({})", flavour.name()));
    let selection = Selection::load()?.ok_or_else(missing)?;
    let image = folder(&selection, flavour)?.join("bzImage");
    if image.exists() {
        Ok(image)
    } else {
        Err(missing())
    }
}

/// Builds the flavours that the cache lacks.
pub fn install(selection: &Selection) -> Result<()> {
    for flavour in Flavour::ALL {
        let target = folder(selection, flavour)?;
        if target.exists() {
            continue;
        }
        let tree = source_tree(selection)?;
        build(&tree, flavour)?;
        paths::publish_folder(&target, |partial| {
            for (from, to) in [("arch/x86/boot/bzImage", "bzImage"), (".config", "config")] {
                let source = tree.join(from);
                fs::copy(&source, partial.join(to)).at("copy", &source)?;
            }
            Ok(())
        })?;
    }
    Ok(())
}

fn folder(selection: &Selection, flavour: Flavour) -> Result<PathBuf> {
    let version = &selection.kernel_source.version;
    let key = paths::key(&[version, &flavour.config(), STEPS]);
    Ok(paths::cache()?
        .join("kernel")
        .join(format!("{version}_{}_{key}", flavour.name())))
}

/// The unpacked source; built objects stay in it for the next flavour.
fn source_tree(selection: &Selection) -> Result<PathBuf> {
    let package = &selection.kernel_source;
    let tree = paths::cache()?.join("source").join(&package.version);
    if tree.exists() {
        return Ok(tree);
    }
    let apt = Apt::of_kernel_sources()?;
    paths::publish_folder(&tree, |partial| {
        let folder = tempfile::tempdir_in(partial).at("create a folder in", partial)?;
        apt.unpack(&package.name, &package.version, folder.path())?;
        progress("unpacking the kernel source (about 20 seconds)");
        let archive = folder
            .path()
            .join("usr/src")
            .join(format!("{}.tar.xz", package.name));
        let mut tar = Command::new("tar");
        tar.arg("-xf")
            .arg(&archive)
            .arg("-C")
            .arg(partial)
            .arg("--strip-components=1");
        shell::run(&mut tar).map(drop)
    })?;
    Ok(tree)
}

fn build(tree: &Path, flavour: Flavour) -> Result<()> {
    progress(&format!(
        "building kernel {} (about {} on two cores)",
        flavour.name(),
        flavour.expected()
    ));
    let wanted = flavour.config();
    let fragment = tree.join("testbed.config");
    fs::write(&fragment, &wanted).at("write", &fragment)?;
    shell::run(make(tree).args(["-s", "tinyconfig"]))?;
    let mut merge = Command::new("scripts/kconfig/merge_config.sh");
    shell::run(
        merge
            .args(["-m", ".config", "testbed.config"])
            .current_dir(tree),
    )?;
    shell::run(make(tree).args(["-s", "olddefconfig"]))?;
    let config = tree.join(".config");
    let config = fs::read_to_string(&config).at("read", &config)?;
    if let Some(line) = first_unfulfilled(&wanted, &config) {
        return Err(Error::KernelOption {
            flavour: flavour.name(),
            line: line.into(),
        });
    }
    compile(tree)
}

/// Runs the long part of the build and reports progress from time to time.
fn compile(tree: &Path) -> Result<()> {
    let log_path = tree.join("testbed.log");
    let mut log = File::create(&log_path).at("create", &log_path)?;
    let errors = log.try_clone().at("open", &log_path)?;
    let jobs = thread::available_parallelism().map_or(1, usize::from);
    let mut command = make(tree);
    command.args([format!("-j{jobs}"), "bzImage".into()]);
    command
        .stdin(Stdio::null())
        .stdout(Stdio::piped())
        .stderr(errors);
    let mut child = command.spawn().map_err(|source| Error::Start {
        program: "make".into(),
        source,
    })?;
    let (begin, mut reported, mut files) = (Instant::now(), Instant::now(), 0);
    let output = child.stdout.take().map(BufReader::new);
    for line in output
        .into_iter()
        .flat_map(BufRead::lines)
        .map_while(std::result::Result::ok)
    {
        files += 1;
        writeln!(log, "{line}").at("write", &log_path)?;
        if reported.elapsed() >= REPORT_EVERY {
            reported = Instant::now();
            progress(&format!(
                "{files} files built in {} s",
                begin.elapsed().as_secs()
            ));
        }
    }
    let status = child.wait().at("wait for make in", tree)?;
    if status.success() {
        return Ok(());
    }
    let output = fs::read_to_string(&log_path).at("read", &log_path)?;
    Err(Error::Command {
        command: "make bzImage".into(),
        status: status.to_string(),
        output: shell::last_lines(&output, 40),
    })
}

fn make(tree: &Path) -> Command {
    let mut command = Command::new("make");
    command.current_dir(tree).env("LC_ALL", "C");
    command.args(["KBUILD_BUILD_USER=testbed", "KBUILD_BUILD_HOST=testbed"]);
    command
}

/// The first line of `wanted` that `config` contradicts. `# X is not set` is fulfilled by silence, too.
fn first_unfulfilled<'a>(wanted: &'a str, config: &str) -> Option<&'a str> {
    let is_set = |option: &str| {
        config.lines().any(|line| {
            line.strip_prefix(option)
                .is_some_and(|rest| rest.starts_with('='))
        })
    };
    wanted.lines().find(|line| {
        if let Some(option) = line
            .strip_prefix("# ")
            .and_then(|rest| rest.strip_suffix(" is not set"))
        {
            return is_set(option);
        }
        line.starts_with("CONFIG_") && !config.lines().any(|other| other == *line)
    })
}

#[cfg(test)]
mod tests {
    use std::collections::HashSet;

    use super::*;

    #[test]
    fn every_kind_of_unfulfilled_line_is_found() {
        let config = "CONFIG_A=y\nCONFIG_NR=64\n# CONFIG_B is not set\n";
        let first = |wanted: &'static str| first_unfulfilled(wanted, config);
        assert_eq!(
            first(
                "# words\nCONFIG_A=y\nCONFIG_NR=64\n# CONFIG_B is not set\n# CONFIG_C is not set"
            ),
            None
        );
        assert_eq!(first("CONFIG_A=y\nCONFIG_B=y\n"), Some("CONFIG_B=y"));
        assert_eq!(first("CONFIG_NR=6"), Some("CONFIG_NR=6"));
        assert_eq!(
            first("# CONFIG_A is not set"),
            Some("# CONFIG_A is not set")
        );
    }

    #[test]
    fn flavours_differ() {
        let keys: HashSet<_> = Flavour::ALL
            .map(|flavour| paths::key(&[&flavour.config()]))
            .into();
        assert_eq!(keys.len(), Flavour::ALL.len());
    }
}
