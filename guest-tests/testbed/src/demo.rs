// SPDX-License-Identifier: Apache-2.0 OR BSD-3-Clause

//! `cargo testbed demo`: the stress guest drives a real NVMe controller on the real path, or on aarch64 the engine in
//! software, and its report is brought out of the test machine.

use std::fs;
use std::path::PathBuf;

use crate::error::{AtPath, Error, Result};
use crate::image;
use crate::machine::Machine;
use crate::paths::{self, GuestTarget};
use crate::setup::Arch;

/// Size of the disk, all of which is written to.
const DISK_MIB: usize = 64;

/// Precedes the report in the output.
const PAGE: &str = "=== the report ===\n";

/// A real NVMe controller on the real path.
const NVME: &str = "\
testbed-bind $TESTBED_BDF_0 || exit 1
testbed inside shape --singles 20 --block 40 -- \
    pinvisor stress --noiommu --device $TESTBED_BDF_0 --memory 120M --cpus 2 \
    --kernel /testbed/dma-stress --cmdline destroy=yes --html /tmp/page
";

/// What `cargo demo` runs.
const SOFTWARE: &str =
    "pinvisor stress --software --memory 64M --kernel /testbed/dma-stress --html /tmp/page\n";

const END: &str = "\
status=$?
echo '=== the report ==='
cat /tmp/page
exit $status
";

/// Shows it, and returns the exit status of `pinvisor stress`.
///
/// # Errors
/// Those of [`Machine::run`], and [`Error::Missing`] before the guest is built.
pub fn show(arch: Arch, mut out: impl FnMut(&[u8])) -> Result<i32> {
    let guest = paths::guest_program("dma-stress", GuestTarget::BareMetal(arch))?;
    let machine = Machine::builder().arch(arch).file("dma-stress", guest);
    let disk = tempfile::NamedTempFile::new().at("create", "a temporary file")?;
    let (machine, script) = match arch {
        Arch::X86_64 => {
            image::write(disk.path(), &image::bytes(DISK_MIB, 1))?;
            let machine = machine
                .hugepages_2m(120)
                .disk("disk", disk.path().to_owned())
                .device("nvme,drive=disk,serial=demo");
            (machine, NVME)
        }
        Arch::Aarch64 => (machine, SOFTWARE),
    };
    let mut page = Splitter::default();
    let outcome = machine.run_streaming(&[script, END].concat(), &mut |chunk: &[u8]| {
        out(&page.before(chunk));
    })?;
    let path = target()?.join("testbed-demo.html");
    if let Some((_, text)) = outcome.output.split_once(PAGE) {
        fs::write(&path, text).at("write", &path)?;
        out(format!("The report is in {}\n", path.display()).as_bytes());
    }
    Ok(outcome.status.code())
}

/// Where cargo puts what it builds.
fn target() -> Result<PathBuf> {
    let profile = paths::sibling_program("")?;
    profile
        .ancestors()
        .nth(1)
        .map(PathBuf::from)
        .ok_or_else(|| {
            Error::Usage(format!(
                "{} is not in a target directory",
                profile.display()
            ))
        })
}

/// Passes on what comes before [`PAGE`], a line at a time.
#[derive(Debug, Default)]
struct Splitter {
    line: Vec<u8>,
    over: bool,
}

impl Splitter {
    fn before(&mut self, chunk: &[u8]) -> Vec<u8> {
        let mut shown = Vec::new();
        for byte in chunk {
            self.line.push(*byte);
            if *byte == b'\n' {
                let line = std::mem::take(&mut self.line);
                self.over |= line == PAGE.as_bytes();
                if !self.over {
                    shown.extend(line);
                }
            }
        }
        shown
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn the_page_is_not_shown() {
        let mut splitter = Splitter::default();
        let mut shown = Vec::new();
        for chunk in ["one\ntw", "o\n=== the", " report ===\n<html>", "\n"] {
            shown.extend(splitter.before(chunk.as_bytes()));
        }
        assert_eq!(shown, b"one\ntwo\n");
    }
}
