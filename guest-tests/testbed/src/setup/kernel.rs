// SPDX-License-Identifier: Apache-2.0 OR BSD-3-Clause

//! Builds the test machine's kernels: those of one source one after the other in one tree.

use std::fs;
use std::path::{Path, PathBuf};
use std::process::Command;

use super::apt::Apt;
use super::arch::Arch;
use super::flavour::{Age, Flavour};
use super::selection::{Package, Selection};
use super::{compile, lock, not_set_up};
use crate::error::{AtPath, Error, Result};
use crate::paths;
use crate::shell::{self, progress};

/// Changes whenever the steps that make a kernel do, so that kernels made otherwise are rebuilt.
fn steps(arch: Arch) -> String {
    let (target, _) = arch.kernel_file();
    format!("tinyconfig, merge_config -m, olddefconfig, {target}")
}

/// The kernel of a flavour in the cache; builds it first if it is one that the set-up leaves out.
///
/// # Errors
/// [`Error::Missing`] if the testbed is not set up, or what building the kernel returns.
pub fn installed(arch: Arch, flavour: Flavour) -> Result<PathBuf> {
    let missing = || missing(arch, flavour);
    let selection = Selection::load(arch)?.ok_or_else(missing)?;
    let source = source(&selection, flavour)?;
    let (name, _) = arch.kernel_file();
    let image = folder(arch, source, flavour)?.join(name);
    if !image.exists() && flavour.is_built_when_used(arch) {
        let _lock = lock()?;
        install_one(arch, source, flavour)?;
    }
    if image.exists() {
        Ok(image)
    } else {
        Err(missing())
    }
}

/// Builds the flavours of the set-up that the cache lacks.
pub fn install(selection: &Selection) -> Result<()> {
    let arch = selection.arch;
    for flavour in Flavour::of_setup(arch).iter().copied() {
        install_one(arch, source(selection, flavour)?, flavour)?;
    }
    Ok(())
}

fn missing(arch: Arch, flavour: Flavour) -> Error {
    not_set_up(
        arch,
        &format!("the test machine's kernel ({})", flavour.name()),
    )
}

/// The package of a kernel's source. A selection of the time before has none of the old ones.
fn source(selection: &Selection, flavour: Flavour) -> Result<&Package> {
    let found = match flavour.age() {
        Age::New => Some(&selection.kernel_source),
        Age::Old => selection.old_kernel_source.as_ref(),
    };
    found.ok_or_else(|| missing(selection.arch, flavour))
}

/// Builds a flavour if the cache lacks it.
fn install_one(arch: Arch, source: &Package, flavour: Flavour) -> Result<()> {
    let target = folder(arch, source, flavour)?;
    if target.exists() {
        return Ok(());
    }
    let tree = source_tree(arch, source, flavour.age())?;
    let (name, file) = arch.kernel_file();
    build(arch, &tree, flavour)?;
    paths::publish_folder(&target, |partial| {
        for (from, to) in [(file, name), (".config", "config")] {
            let source = tree.join(from);
            fs::copy(&source, partial.join(to)).at("copy", &source)?;
        }
        Ok(())
    })
}

fn folder(arch: Arch, source: &Package, flavour: Flavour) -> Result<PathBuf> {
    let version = &source.version;
    let key = paths::key(&[version, &flavour.config(arch), &steps(arch)]);
    let of = suffix(arch);
    Ok(paths::cache()?
        .join("kernel")
        .join(format!("{version}_{}{of}_{key}", flavour.name())))
}

/// What tells folders of `arch` from those of a PC.
fn suffix(arch: Arch) -> String {
    match arch {
        Arch::X86_64 => String::new(),
        Arch::Aarch64 => format!("_{}", arch.name()),
    }
}

/// The unpacked source; built objects stay in it for the next flavour.
fn source_tree(arch: Arch, package: &Package, age: Age) -> Result<PathBuf> {
    let name = format!("{}{}", package.version, suffix(arch));
    let tree = paths::cache()?.join("source").join(name);
    if tree.exists() {
        return Ok(tree);
    }
    let apt = match age {
        Age::New => Apt::of_kernel_sources()?,
        Age::Old => Apt::of_debian_13(Arch::default())?,
    };
    paths::publish_folder(&tree, |partial| {
        let folder = tempfile::tempdir_in(partial).at("create a folder in", partial)?;
        apt.unpack(&package.name, &package.version, folder.path())?;
        progress("unpacking the kernel source (about 20 seconds)");
        let archive = folder
            .path()
            .join("usr/src")
            .join(format!("{}.tar.xz", package.name));
        shell::unpack(&archive, partial)
    })?;
    Ok(tree)
}

fn build(arch: Arch, tree: &Path, flavour: Flavour) -> Result<()> {
    progress(&format!(
        "building kernel {} (about {} on two cores)",
        flavour.name(),
        flavour.expected()
    ));
    let wanted = flavour.config(arch);
    let fragment = tree.join("testbed.config");
    fs::write(&fragment, &wanted).at("write", &fragment)?;
    shell::run(make(arch, tree).args(["-s", "tinyconfig"]))?;
    let mut merge = Command::new("scripts/kconfig/merge_config.sh");
    shell::run(
        merge
            .args(["-m", ".config", "testbed.config"])
            .current_dir(tree),
    )?;
    shell::run(make(arch, tree).args(["-s", "olddefconfig"]))?;
    let config = tree.join(".config");
    let config = fs::read_to_string(&config).at("read", &config)?;
    if let Some(line) = first_unfulfilled(&wanted, &config) {
        return Err(Error::KernelOption {
            flavour: flavour.name(),
            line: line.into(),
        });
    }
    let (target, _) = arch.kernel_file();
    let mut command = make(arch, tree);
    command.args([format!("-j{}", compile::jobs()), target.into()]);
    compile::run(&mut command, &tree.join("testbed.log"))
}

fn make(arch: Arch, tree: &Path) -> Command {
    let mut command = Command::new("make");
    command.current_dir(tree).env("LC_ALL", "C");
    command.args(["KBUILD_BUILD_USER=testbed", "KBUILD_BUILD_HOST=testbed"]);
    if let Some(name) = arch.of_kernel() {
        command.arg(format!("ARCH={name}"));
    }
    if let Some((prefix, _)) = arch.cross_compiler() {
        command.arg(format!("CROSS_COMPILE={prefix}"));
    }
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
    fn kernels_of_a_pc_are_the_ones_in_the_cache() {
        assert_eq!(
            steps(Arch::X86_64),
            "tinyconfig, merge_config -m, olddefconfig, bzImage"
        );
        assert_eq!(suffix(Arch::X86_64), "");
    }
}
