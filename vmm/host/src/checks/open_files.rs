//! The limit on open files.

use crate::checks::id::Id;
use crate::checks::line::Line;
use crate::checks::privilege::limit;
use crate::sys_root::SysRoot;

/// What a run opens that has no device and no CPU, and what is left for later: the serial port's clients,
/// files of sysfs.
const BASE: u64 = 64;
/// A device: its node, its notices, the eventfds of INTx or of its first message. Every further MSI-X vector
/// that a guest uses is one more; a guest gets fewer vectors where there are too few.
const PER_DEVICE: u64 = 8;

/// Open files that a run needs with so many `devices` and `cpus`, those that are open now included.
#[must_use]
pub fn open_files_needed(root: &SysRoot, devices: usize, cpus: u8) -> u64 {
    let open = root.names("proc/self/fd").len() as u64;
    let devices = (devices as u64).saturating_mul(PER_DEVICE);
    open.saturating_add(BASE)
        .saturating_add(devices)
        .saturating_add(cpus.into())
}

/// What lets a process open `need` files.
#[must_use]
pub fn open_files_hint(need: u64) -> String {
    format!(
        "raise the hard limit on open files: ulimit -n {need} or more, LimitNOFILE= of a systemd unit, \
         --ulimit nofile= of a container"
    )
}

/// [`Id::OpenFiles`], for so many devices and one CPU.
pub(crate) fn check(root: &SysRoot, devices: usize) -> Line {
    let id = Id::OpenFiles;
    let need = open_files_needed(root, devices, 1);
    // A run raises the soft limit to the hard one.
    match limit(&root.word("proc/self/limits"), "Max open files").map(|limit| limit.hard) {
        Some(Some(limit)) if limit < need => Line::fail(
            id,
            format!("A run needs up to {need} open files, and the limit is {limit}"),
            open_files_hint(need),
        ),
        Some(Some(limit)) => Line::ok(
            id,
            format!(
                "A run needs up to {need}, and one for each MSI-X vector; the limit is {limit}"
            ),
        ),
        Some(None) => Line::ok(id, "There is no limit"),
        None => Line::warn(
            id,
            "The limit cannot be read from /proc/self/limits",
            "ulimit -Hn",
        ),
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::checks::line::Verdict;
    use crate::sys_root::tests::Fake;

    #[test]
    fn the_hard_limit_is_compared_with_the_need() {
        let fake = Fake::new();
        let judge = |limits: &str, devices| {
            fake.write("proc/self/limits", limits);
            check(&fake.root, devices)
        };
        assert_eq!(judge("", 1).verdict, Verdict::Warn);
        let need = open_files_needed(&fake.root, 2, 1);
        let hard = |hard: u64| {
            format!("Max open files            20                   {hard}                files\n")
        };
        assert_eq!(judge(&hard(need), 2).verdict, Verdict::Ok);
        let line = judge(&hard(need - 1), 2);
        assert_eq!(line.verdict, Verdict::Fail);
        assert!(line.hint.unwrap().contains(&format!("ulimit -n {need} ")));
        let none = hard(7).replace('7', "unlimited");
        assert_eq!(judge(&none, 2).verdict, Verdict::Ok);
    }

    #[test]
    fn what_is_open_already_counts() {
        let fake = Fake::new();
        let before = open_files_needed(&fake.root, 1, 1);
        fake.write("proc/self/fd/0", "");
        fake.write("proc/self/fd/1", "");
        assert_eq!(open_files_needed(&fake.root, 1, 1), before + 2);
        assert_eq!(open_files_needed(&fake.root, usize::MAX, u8::MAX), u64::MAX);
    }
}
