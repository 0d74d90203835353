// SPDX-License-Identifier: Apache-2.0 OR BSD-3-Clause

//! Whether a device was quiet before its memory was released or its file closed.
//!
//! The test machine's kernel notes, in one timeline, every configuration write that comes from user
//! space and every call that can unpin memory or release the device, by character devices and
//! iommufd or by VFIO groups and io_uring. (The kernel's own clearing of
//! bus mastering at the last close takes another path and does not count.) That the write reached
//! the device is what QEMU's `pci_cfg_write` shows; see [`crate::trace`].

use std::time::Duration;

use pci_config::regs::{COMMAND, COMMAND_BUS_MASTER};

/// Script lines that start the notes; tracefs is mounted on the test machine. What a kernel does not have is left out.
/// `$argN` are the probed function's arguments (Linux Documentation/trace/kprobetrace.rst).
pub const START: &str = "\
probe() {
    where=${2%%+*}
    grep -q \" [Tt] $where$\" /proc/kallsyms || return 0
    echo \"$*\" >> /sys/kernel/tracing/kprobe_events
}
for width in byte word dword; do
    probe p:testbed/config_$width pci_user_write_config_$width 'where=$arg2:x32' 'value=$arg3:x32'
done
probe p:testbed/unmap iommufd_ioas_unmap
probe p:testbed/detach iommufd_device_detach
probe p:testbed/destroy iommufd_destroy
probe p:testbed/update_pins io_register_rsrc_update
probe p:testbed/unpin io_sqe_buffers_unregister
probe p:testbed/unpin_at_end __io_sqe_buffers_unregister
probe p:testbed/close_device vfio_device_fops_release
probe p:testbed/close_group vfio_group_fops_release
probe p:testbed/close_container vfio_fops_release
probe p:testbed/close_iommufd iommufd_fops_release
probe r:testbed/device_closed vfio_pci_core_close_device
echo global > /sys/kernel/tracing/trace_clock
echo 1 > /sys/kernel/tracing/events/testbed/enable
";

/// Script lines that show the notes, oldest first, and empty them.
pub const SHOW: &str = "\
echo testbed: notes begin
grep -v '^#' /sys/kernel/tracing/trace
echo testbed: notes end
echo > /sys/kernel/tracing/trace
";

/// Script lines that define `show_order`, which does what [`SHOW`] does.
#[must_use]
pub fn show_function() -> String {
    format!("show_order() {{\n{SHOW}}}\n")
}

/// Notes of calls that can release memory or the device.
const RELEASES: [&str; 10] = [
    "unmap",
    "detach",
    "destroy",
    "update_pins",
    "unpin",
    "unpin_at_end",
    "close_device",
    "close_group",
    "close_container",
    "close_iommufd",
];

/// Contents of the notes.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Verdict {
    /// Bus mastering was on, and was switched off before the first release.
    QuietFirst,
    /// Bus mastering was never switched on.
    NeverMaster,
    /// Something was released while the device could master the bus.
    ReleasedWhileMaster,
    /// Nothing was released: the notes are incomplete.
    NothingReleased,
}

/// The notes between the lines that [`SHOW`] prints, of each time it was used.
#[must_use]
pub fn notes(output: &str) -> Vec<&str> {
    let parts = output.split("testbed: notes begin\n").skip(1);
    parts
        .filter_map(|part| part.split("testbed: notes end").next())
        .collect()
}

/// Judges the notes of one run of `pinvisor` with one device.
#[must_use]
pub fn judge(notes: &str) -> Verdict {
    let (mut master, mut was_master, mut released) = (false, false, false);
    for line in notes.lines() {
        if let Some(value) = command_value(line) {
            master = value & u64::from(COMMAND_BUS_MASTER) != 0;
            was_master |= master;
        } else if RELEASES.iter().any(|name| is_note(line, name)) {
            released = true;
            if master {
                return Verdict::ReleasedWhileMaster;
            }
        }
    }
    match (released, was_master) {
        (false, _) => Verdict::NothingReleased,
        (true, true) => Verdict::QuietFirst,
        (true, false) => Verdict::NeverMaster,
    }
}

/// Whether every one of `names` is in the notes.
#[must_use]
pub fn has_all(notes: &str, names: &[&str]) -> bool {
    let has = |name: &&str| notes.lines().any(|line| is_note(line, name));
    names.iter().all(has)
}

/// Whether `/dev/iommu`, which pins memory, stayed open until the kernel had closed the device, in whatever way its
/// users ended.
#[must_use]
pub fn closed_before_iommufd(notes: &str) -> bool {
    let lines: Vec<_> = notes.lines().collect();
    let at = |name| lines.iter().rposition(|line| is_note(line, name));
    let device = at("device_closed");
    device.is_some() && device < at("close_iommufd")
}

/// Whether memory that io_uring pinned stayed pinned until the kernel had closed the device. This is required after the
/// monitor was killed, when no process has stopped the device before.
#[must_use]
pub fn unpinned_last(notes: &str) -> bool {
    let lines: Vec<_> = notes.lines().collect();
    match (last(&lines, &CLOSED), last(&lines, &UNPINNED)) {
        (Some(closed), Some(unpinned)) => closed < unpinned,
        _ => false,
    }
}

/// How long before the kernel had closed the device the last pin ended; `None` if it ended after that.
#[must_use]
pub fn unpinned_before_close(notes: &str) -> Option<Duration> {
    let lines: Vec<_> = notes.lines().collect();
    let (closed, unpinned) = (last(&lines, &CLOSED)?, last(&lines, &UNPINNED)?);
    let time = |at: usize| seconds(lines[at]);
    (unpinned < closed)
        .then(|| Duration::try_from_secs_f64(time(closed)? - time(unpinned)?).ok())?
}

/// Notes of the end of a device's close, and of pins.
const CLOSED: [&str; 1] = ["device_closed"];
const UNPINNED: [&str; 2] = ["unpin", "unpin_at_end"];

/// The last line that is one of these notes.
fn last(lines: &[&str], names: &[&str]) -> Option<usize> {
    lines
        .iter()
        .rposition(|line| names.iter().any(|name| is_note(line, name)))
}

/// When it was noted: `TASK [CPU] FLAGS SECONDS: NAME: …`.
fn seconds(line: &str) -> Option<f64> {
    let words = line.split_whitespace();
    let mut ends = words.filter_map(|word| word.strip_suffix(':'));
    ends.find_map(|word| word.parse().ok())
}

fn is_note(line: &str, name: &str) -> bool {
    line.contains(&format!(" {name}: ("))
}

/// The low byte of COMMAND if the line is a write of it, of whatever width.
fn command_value(line: &str) -> Option<u64> {
    let (_, rest) = line.split_once(" config_")?;
    let field = |name: &str| {
        let (_, value) = rest.split_once(name)?;
        u64::from_str_radix(value.split_whitespace().next()?, 16).ok()
    };
    (field("where=0x")? == u64::from(COMMAND)).then(|| field("value=0x"))?
}

#[cfg(test)]
mod tests {
    use super::*;

    const ON: &str = " pinvisor-9 [000] ..... 1.0: config_word: (pci_user_write_config_word+0x0/0x60) where=0x4 value=0x507\n";
    const OFF: &str = " pinvisor-9 [000] ..... 2.0: config_word: (pci_user_write_config_word+0x0/0x60) where=0x4 value=0x503\n";
    const OTHER: &str = " pinvisor-9 [000] ..... 2.0: config_byte: (pci_user_write_config_byte+0x0/0x60) where=0x3c value=0x0\n";
    const UNMAP: &str = " pinvisor-9 [001] ..... 3.0: unmap: (iommufd_ioas_unmap+0x0/0x60)\n";
    const CLOSE: &str =
        " pinvisor-9 [001] ..... 4.0: close_device: (vfio_device_fops_release+0x0/0x60)\n";

    #[test]
    fn quiet_before_release_is_right() {
        assert_eq!(
            judge(&[ON, OFF, UNMAP, CLOSE].concat()),
            Verdict::QuietFirst
        );
        assert_eq!(judge(&[OFF, OTHER, CLOSE].concat()), Verdict::NeverMaster);
    }

    #[test]
    fn every_early_release_is_wrong() {
        for early in [UNMAP, CLOSE, UNPIN] {
            assert_eq!(
                judge(&[ON, early, OFF].concat()),
                Verdict::ReleasedWhileMaster
            );
            assert_eq!(
                judge(&[ON, OFF, ON, early].concat()),
                Verdict::ReleasedWhileMaster
            );
            assert_eq!(
                judge(&[ON, OTHER, early].concat()),
                Verdict::ReleasedWhileMaster
            );
        }
    }

    const UNPIN: &str =
        " kworker-7 [000] ..... 3.5: unpin_at_end: (__io_sqe_buffers_unregister+0x0/0x60)\n";
    const CLOSED: &str = " pinvisor-9 [001] ..... 4.1: device_closed: (vfio_df_close+0x4d/0x80 <- vfio_pci_core_close_device)\n";

    #[test]
    fn after_a_kill_memory_must_be_pinned_until_the_device_is_closed() {
        assert!(unpinned_last(&[ON, CLOSE, CLOSED, UNPIN].concat()));
        // One of two who pinned it.
        assert!(unpinned_last(&[ON, UNPIN, CLOSED, UNPIN].concat()));
        assert!(!unpinned_last(&[ON, CLOSE, UNPIN, CLOSED].concat()));
        let early = unpinned_before_close(&[ON, UNPIN, CLOSE, CLOSED].concat());
        assert_eq!(early.map(|time| time.as_millis()), Some(600));
        assert_eq!(unpinned_before_close(&[ON, CLOSED, UNPIN].concat()), None);
        assert_eq!(unpinned_before_close(UNPIN), None);
        assert!(!unpinned_last(&[ON, CLOSE, CLOSED].concat()));
        assert!(!unpinned_last(UNPIN));
    }

    #[test]
    fn a_note_that_is_missing_is_missed() {
        let notes = [UNPIN, CLOSE].concat();
        assert!(has_all(&notes, &["unpin_at_end", "close_device"]));
        assert!(!has_all(&notes, &["unpin"]));
        assert!(!has_all(&notes, &["close_device", "close_group"]));
    }

    #[test]
    fn notes_without_a_release_prove_nothing() {
        assert_eq!(judge(&[ON, OFF].concat()), Verdict::NothingReleased);
        assert_eq!(judge(""), Verdict::NothingReleased);
    }

    #[test]
    fn notes_are_cut_out_of_the_output() {
        let output = "x\ntestbed: notes begin\na\ntestbed: notes end\ny\ntestbed: notes begin\nb\ntestbed: notes end\n";
        assert_eq!(notes(output), ["a\n", "b\n"]);
    }
}
