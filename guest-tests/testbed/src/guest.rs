// SPDX-License-Identifier: Apache-2.0 OR BSD-3-Clause

//! What a guest boots: an initramfs of busybox, the stock kernel's own modules, and a script.
//!
//! The script runs as `/case` in a shell of busybox's, with its output on the guest's console. What
//! it has to tell, it reports in lines `guest: KEY=VALUE`, which [`facts`] finds among the
//! kernel's.

use std::collections::{BTreeMap, BTreeSet};
use std::fs;
use std::path::{Path, PathBuf};

use crate::error::{AtPath, Error, Result};
use crate::initramfs::Initramfs;
use crate::paths::{self, GuestTarget};
use crate::setup::{self, Arch, GuestKernel};
use crate::shell;

/// Writes an initramfs with these modules and their dependencies, in the order in which they load.
///
/// # Errors
/// [`Error::Missing`] before set-up, [`Error::Malformed`] for a module that the kernel does not have.
pub fn write_initramfs(path: &Path, modules: &[&str], script: &str) -> Result<()> {
    write_initramfs_of(&setup::guest_kernel()?, path, modules, script)
}

/// The same with the modules of this kernel, for machines of its architecture.
///
/// # Errors
/// Those of [`write_initramfs`].
pub fn write_initramfs_of(
    kernel: &GuestKernel,
    path: &Path,
    modules: &[&str],
    script: &str,
) -> Result<()> {
    let mut archive = with_script(kernel.arch(), script)?;
    add_modules(&mut archive, kernel, modules)?;
    archive.write(path)
}

/// The same with this program of the workspace's as `/bin/PROGRAM`.
///
/// # Errors
/// Those of [`write_initramfs`], and [`Error::Missing`] before the program is built.
pub fn write_program_initramfs(
    path: &Path,
    modules: &[&str],
    program: &str,
    script: &str,
) -> Result<()> {
    let mut archive = with_script(Arch::X86_64, script)?;
    let source = paths::guest_program(program, GuestTarget::Linux(Arch::X86_64))?;
    archive.add_path(&format!("bin/{program}"), &source)?;
    add_modules(&mut archive, &setup::guest_kernel()?, modules)?;
    archive.write(path)
}

/// Writes an initramfs with these programs of this machine's in `/bin`, the libraries that they load, and modules.
///
/// # Errors
/// Those of [`write_initramfs`], and that `ldd` fails.
pub fn write_initramfs_with(
    path: &Path,
    modules: &[&str],
    programs: &[&str],
    script: &str,
) -> Result<()> {
    let mut archive = with_script(Arch::X86_64, script)?;
    let mut files = BTreeSet::new();
    for program in programs {
        let name = Path::new(program).file_name().unwrap_or_default();
        let name = format!("bin/{}", name.to_string_lossy());
        archive.add_path(&name, Path::new(program))?;
        let listed = shell::run(&mut shell::command("ldd", [program]))?;
        files.extend(libraries(&listed).map(PathBuf::from));
    }
    for file in files {
        archive.add_path(file.to_string_lossy().trim_start_matches('/'), &file)?;
    }
    add_modules(&mut archive, &setup::guest_kernel()?, modules)?;
    archive.write(path)
}

/// The files in what `ldd` prints: `NAME => FILE (ADDRESS)`, or `FILE (ADDRESS)` for the dynamic linker.
fn libraries(listed: &str) -> impl Iterator<Item = &str> {
    listed.lines().filter_map(|line| {
        let mut words = line.split_whitespace();
        words.find(|word| word.starts_with('/'))
    })
}

fn with_script(arch: Arch, script: &str) -> Result<Initramfs> {
    let mut archive =
        Initramfs::with_busybox(&setup::busybox(arch)?, include_str!("../guest/init"))?;
    archive.add_file("case", script.as_bytes().to_vec());
    Ok(archive)
}

/// Writes an initramfs whose init is `linux-stress`, with these modules of the kernel and their dependencies.
/// What it is to do is on the kernel's command line.
///
/// # Errors
/// Those of [`write_initramfs`], and [`Error::Missing`] before `linux-stress` is built.
pub fn write_stress_initramfs(kernel: &GuestKernel, path: &Path, modules: &[&str]) -> Result<()> {
    let program = paths::guest_program("linux-stress", GuestTarget::Linux(kernel.arch()))?;
    let mut archive = Initramfs::with_init(&program)?;
    add_modules(&mut archive, kernel, modules)?;
    archive.write(path)
}

/// Adds modules and their dependencies as `modules/NNN-NAME.ko`.
fn add_modules(archive: &mut Initramfs, kernel: &GuestKernel, modules: &[&str]) -> Result<()> {
    for (number, module) in load_order(kernel, modules)?.iter().enumerate() {
        let name = module.file_name().unwrap_or_default().to_string_lossy();
        let name = name.split('.').next().unwrap_or_default();
        archive.add_file(
            &format!("modules/{number:03}-{name}.ko"),
            module_bytes(module)?,
        );
    }
    Ok(())
}

/// The values of the lines `guest: KEY=VALUE` in a console's output; the last of a key counts.
#[must_use]
pub fn facts(output: &str) -> BTreeMap<&str, &str> {
    let lines = output
        .lines()
        .filter_map(|line| line.trim_end().strip_prefix("guest: "));
    lines.filter_map(|line| line.split_once('=')).collect()
}

fn load_order(kernel: &GuestKernel, modules: &[&str]) -> Result<Vec<PathBuf>> {
    let folder = kernel.modules();
    let index = folder.join("modules.dep");
    let dependencies = fs::read_to_string(&index).at("read", &index)?;
    let built_in = folder.join("modules.builtin");
    let built_in = fs::read_to_string(&built_in).at("read", &built_in)?;
    let mut order: Vec<&str> = Vec::new();
    for module in modules {
        if built_in.lines().any(|file| is_module(file, module)) {
            continue;
        }
        let files = with_dependencies(&dependencies, module).ok_or_else(|| Error::Malformed {
            path: index.clone(),
            reason: format!("{} has no module {module}", kernel.release()),
        })?;
        for file in files {
            if !order.contains(&file) {
                order.push(file);
            }
        }
    }
    Ok(order.into_iter().map(|file| folder.join(file)).collect())
}

/// Whether `file` is that of `module`, whose name has hyphens or underscores.
fn is_module(file: &str, module: &str) -> bool {
    let name = file.rsplit('/').next().unwrap_or(file);
    let name = name.split('.').next();
    name.is_some_and(|name| name.replace('-', "_") == module.replace('-', "_"))
}

/// A module's file preceded by those it needs. `modules.dep` names those in reverse order of loading.
fn with_dependencies<'a>(dependencies: &'a str, module: &str) -> Option<Vec<&'a str>> {
    let (file, needs) = dependencies
        .lines()
        .filter_map(|line| line.split_once(':'))
        .find(|(file, _)| is_module(file, module))?;
    Some(needs.split_whitespace().rev().chain([file]).collect())
}

/// A module, unpacked if it is packed: `.ko` or `.ko.xz`.
fn module_bytes(module: &Path) -> Result<Vec<u8>> {
    if module.extension().is_none_or(|extension| extension != "xz") {
        return fs::read(module).at("read", module);
    }
    let plain = tempfile::NamedTempFile::new().at("create", "a temporary file")?;
    let [from, to] = [module, plain.path()].map(|path| shell::quote(&path.to_string_lossy()));
    shell::run(&mut shell::command(
        "sh",
        ["-c", &format!("xz -dc {from} > {to}")],
    ))?;
    fs::read(plain.path()).at("read", plain.path())
}

#[cfg(test)]
mod tests {
    use super::*;

    const INDEX: &str = "kernel/a/nvme-core.ko: kernel/t10-pi.ko kernel/crc.ko\n\
                         kernel/a/nvme.ko: kernel/a/nvme-core.ko kernel/t10-pi.ko kernel/crc.ko\n\
                         kernel/lone.ko.xz:\n";

    #[test]
    fn needed_modules_come_first() {
        let order = with_dependencies(INDEX, "nvme").unwrap();
        let expected = [
            "kernel/crc.ko",
            "kernel/t10-pi.ko",
            "kernel/a/nvme-core.ko",
            "kernel/a/nvme.ko",
        ];
        assert_eq!(order, expected);
        assert_eq!(with_dependencies(INDEX, "nvme_core").unwrap().len(), 3);
        assert_eq!(
            with_dependencies(INDEX, "lone").unwrap(),
            ["kernel/lone.ko.xz"]
        );
        assert_eq!(with_dependencies(INDEX, "nvm"), None);
    }

    #[test]
    fn libraries_are_all_files_that_are_named() {
        let listed =
            "\tlinux-vdso.so.1 (0x1)\n\tlibc.so.6 => /lib/libc.so.6 (0x2)\n\t/lib64/ld.so (0x3)\n";
        let found: Vec<_> = libraries(listed).collect();
        assert_eq!(found, ["/lib/libc.so.6", "/lib64/ld.so"]);
    }

    #[test]
    fn facts_are_found_among_kernel_lines() {
        let output =
            "[    0.1] boot\r\nguest: sha256=ab\r\n[ 1.0] guest: sha256=no\nguest: words\n";
        assert_eq!(facts(output), BTreeMap::from([("sha256", "ab")]));
    }
}
