// SPDX-License-Identifier: Apache-2.0 OR BSD-3-Clause

//! The root file system of a test machine that cannot run this machine's programs: busybox, under all of its names.

use std::fs;
use std::os::unix::fs::symlink;
use std::path::PathBuf;

use super::arch::Arch;
use super::selection::Selection;
use super::{busybox, not_set_up};
use crate::error::{AtPath, Result};
use crate::paths;

/// Programs that scripts on such a machine may use.
const NAMES: &[&str] = &[
    "ash",
    "awk",
    "base64",
    "basename",
    "blockdev",
    "cat",
    "chmod",
    "chroot",
    "cmp",
    "cp",
    "cut",
    "date",
    "dd",
    "devmem",
    "dirname",
    "dmesg",
    "du",
    "echo",
    "env",
    "expr",
    "false",
    "find",
    "free",
    "grep",
    "gunzip",
    "gzip",
    "head",
    "hexdump",
    "id",
    "ip",
    "kill",
    "killall",
    "ln",
    "losetup",
    "ls",
    "mkdir",
    "mknod",
    "mktemp",
    "mount",
    "mv",
    "nproc",
    "od",
    "pidof",
    "ping",
    "printenv",
    "printf",
    "ps",
    "readlink",
    "realpath",
    "rm",
    "rmdir",
    "sed",
    "seq",
    "setsid",
    "sh",
    "sha256sum",
    "sleep",
    "sort",
    "stat",
    "sync",
    "sysctl",
    "tail",
    "tar",
    "tee",
    "test",
    "timeout",
    "touch",
    "tr",
    "true",
    "truncate",
    "umount",
    "uname",
    "uniq",
    "usleep",
    "wc",
    "which",
    "xargs",
    "yes",
    "zcat",
];

/// The folder that is the root of machines of `arch`: `/` where they run this machine's programs.
///
/// # Errors
/// [`Error::Missing`](crate::Error::Missing) if the testbed is not set up.
pub fn installed(arch: Arch) -> Result<PathBuf> {
    if arch == Arch::default() {
        return Ok("/".into());
    }
    let missing = || not_set_up(arch, "the test machine's root file system");
    let selection = Selection::load(arch)?.ok_or_else(missing)?;
    let folder = folder(&selection)?;
    if folder.exists() {
        Ok(folder)
    } else {
        Err(missing())
    }
}

/// Makes the folder, if these machines need one and the cache has none.
pub fn install(selection: &Selection) -> Result<()> {
    let target = folder(selection)?;
    if selection.arch == Arch::default() || target.exists() {
        return Ok(());
    }
    let program = busybox::path(selection)?;
    paths::publish_folder(&target, |partial| {
        for name in ["bin", "dev", "etc", "proc", "root", "run", "sys", "tmp"] {
            paths::create_folder(&partial.join(name))?;
        }
        let bin = partial.join("bin");
        fs::copy(&program, bin.join("busybox")).at("copy", &program)?;
        for name in NAMES {
            let link = bin.join(name);
            symlink("busybox", &link).at("link", &link)?;
        }
        Ok(())
    })
}

fn folder(selection: &Selection) -> Result<PathBuf> {
    let key = paths::key(&[&selection.busybox.version, &NAMES.concat()]);
    let name = format!("{}_{key}", selection.arch.name());
    Ok(paths::cache()?.join("root").join(name))
}
