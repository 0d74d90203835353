// SPDX-License-Identifier: Apache-2.0 OR BSD-3-Clause

//! Builds QEMU for test machines that count instructions: Debian's source with one more line.
//!
//! Where a hypervisor injects an interrupt as it enters a nested guest, QEMU 10 delivers the interrupt and leaves
//! `exception_index` set (target/i386/tcg/system/svm_helper.c, `helper_vmrun`). Whatever ends the processor's loop next
//! without an exit of the guest delivers it once more, whether the guest has interrupts enabled or not
//! (accel/tcg/cpu-exec.c, `cpu_handle_exception`). A clock that counts instructions ends the loop for each timer. Guests
//! then wait for a lock of their own, or for the end of a handler that the second one interrupts.

use std::fs;
use std::path::{Path, PathBuf};
use std::process::Command;

use super::apt::Apt;
use super::arch::Arch;
use super::{compile, lock, tools};
use crate::error::{AtPath, Error, Result};
use crate::paths;
use crate::shell::{self, progress};

const FILE: &str = "target/i386/tcg/system/svm_helper.c";
const DELIVERY: &str = "            do_interrupt_x86_hardirq(env, vector, 1);\n";
const AFTER_IT: &str = "            cs->exception_index = -1;\n";

/// What a test machine needs, and no more.
const OPTIONS: [&str; 12] = [
    "--target-list=x86_64-softmmu",
    "--python=/usr/bin/python3",
    "--without-default-features",
    "--enable-tcg",
    "--enable-virtfs",
    "--enable-attr",
    "--enable-fdt=system",
    "--enable-trace-backends=log",
    "--disable-docs",
    "--disable-tools",
    "--disable-werror",
    "--disable-install-blobs",
];

const PACKAGES: [&str; 7] = [
    "build-essential",
    "libattr1-dev",
    "libfdt-dev",
    "libglib2.0-dev",
    "ninja-build",
    "pkg-config",
    "python3-venv",
];

/// Those that are too old in Debian 12, whose backports have them.
const NEW_PACKAGES: [&str; 2] = ["meson", "python3-pycotap"];

/// The program's name.
fn program() -> &'static str {
    Arch::X86_64.qemu()
}

/// Where Debian has the firmware.
pub const FIRMWARE: [&str; 3] = [
    "/usr/share/seabios",
    "/usr/share/qemu",
    "/usr/lib/ipxe/qemu",
];

/// The program in the cache; builds it if it is not there.
///
/// # Errors
/// [`Error::Missing`] if packages are missing that only root can install; what downloading and building return.
pub fn installed() -> Result<PathBuf> {
    let key = paths::key(&[AFTER_IT, &OPTIONS.join(" ")]);
    let folder = paths::cache()?.join("qemu").join(key);
    let _lock = lock()?;
    if !folder.exists() {
        tools::install(&PACKAGES)?;
        tools::install_new(&NEW_PACKAGES)?;
        let tree = tempfile::tempdir_in(paths::cache()?).at("create a folder in", "the cache")?;
        build(tree.path())?;
        paths::publish_folder(&folder, |partial| {
            let built = tree.path().join("build").join(program());
            fs::copy(&built, partial.join(program())).at("copy", &built)?;
            Ok(())
        })?;
    }
    Ok(folder.join(program()))
}

fn build(tree: &Path) -> Result<()> {
    Apt::of_sources()?.source("qemu", tree)?;
    let file = tree.join(FILE);
    let text = fs::read_to_string(&file).at("read", &file)?;
    fs::write(&file, patched(&text)?).at("write", &file)?;
    // Debian's source is without firmware.
    let firmware = tree.join("pc-bios/meson.build");
    fs::write(&firmware, "roms = []\n").at("write", &firmware)?;
    progress("building QEMU (about 10 minutes on two cores)");
    let folder = tree.join("build");
    paths::create_folder(&folder)?;
    let mut configure = Command::new("../configure");
    shell::run(configure.args(OPTIONS).current_dir(&folder))?;
    let mut ninja = Command::new("ninja");
    ninja
        .args([format!("-j{}", compile::jobs()), program().into()])
        .current_dir(&folder);
    compile::run(&mut ninja, &tree.join("testbed.log"))
}

fn patched(text: &str) -> Result<String> {
    match text.matches(DELIVERY).count() {
        1 => Ok(text.replace(DELIVERY, &[DELIVERY, AFTER_IT].concat())),
        count => Err(Error::Malformed {
            path: FILE.into(),
            reason: format!("it delivers interrupts in {count} places, not in one"),
        }),
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn one_delivery_is_patched_and_no_other_source() {
        let text = format!("        case SVM_EVTINJ_TYPE_INTR:\n{DELIVERY}            break;\n");
        let patched = patched(&text).unwrap();
        assert!(patched.contains(&format!("{DELIVERY}{AFTER_IT}            break;")));
        for wrong in ["", &text.repeat(2)] {
            let error = super::patched(wrong).unwrap_err().to_string();
            assert!(error.contains("svm_helper.c"), "{error}");
        }
    }
}
