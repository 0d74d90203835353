// SPDX-License-Identifier: Apache-2.0 OR BSD-3-Clause

//! Suspend of the host, which takes power from devices that only their guest could set up again.

use std::fs;
use std::path::Path;

use crate::sys_root::SysRoot;

/// Where systemd-logind keeps who prevents what, as long as it runs.
const INHIBITORS: &str = "run/systemd/inhibit";

/// How this host may go to sleep.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Sleep {
    /// The states that it can enter, by the kernel's names (Linux
    /// Documentation/admin-guide/pm/sleep-states.rst).
    pub states: String,
    /// Whether a service may do that by itself or for any user: systemd-logind does, for a lid that is closed or
    /// an idle session.
    pub by_service: bool,
}

/// How this host may go to sleep, unless something keeps it awake.
#[must_use]
pub fn sleep(root: &SysRoot) -> Option<Sleep> {
    let states = root.word("sys/power/state");
    let is_possible = !states.is_empty() && !is_inhibited(root) && !is_masked(root);
    is_possible.then(|| Sleep {
        states,
        by_service: root.exists(INHIBITORS),
    })
}

/// Whether `systemctl mask sleep.target` keeps systemd from it.
fn is_masked(root: &SysRoot) -> bool {
    let target = fs::read_link(root.path("etc/systemd/system/sleep.target"));
    target.is_ok_and(|target| target == Path::new("/dev/null"))
}

/// Whether something blocks sleep by systemd-logind, as `systemd-inhibit --what=sleep` does (systemd
/// src/login/logind-inhibit.c `inhibitor_save`).
fn is_inhibited(root: &SysRoot) -> bool {
    root.names(INHIBITORS).into_iter().any(|name| {
        let text = root
            .text(format!("{INHIBITORS}/{name}"))
            .unwrap_or_default();
        let value = |key: &str| {
            let lines = text.lines();
            let found = lines.filter_map(|line| line.split_once('='));
            let mut values = found.filter(|(name, _)| *name == key);
            values.next().map_or("", |(_, value)| value)
        };
        value("MODE") == "block" && value("WHAT").split(':').any(|what| what == "sleep")
    })
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::sys_root::tests::Fake;

    #[test]
    fn a_host_that_can_sleep_may_be_kept_awake() {
        let fake = Fake::new();
        let found = || sleep(&fake.root);
        let states = || found().map(|sleep| sleep.states);
        assert_eq!(states(), None);
        fake.write("sys/power/state", "\n");
        assert_eq!(states(), None);
        fake.write("sys/power/state", "freeze mem disk\n");
        assert_eq!(states().as_deref(), Some("freeze mem disk"));
        assert!(!found().unwrap().by_service);
        let inhibit = |what: &str, mode: &str| {
            let text = format!("# This is private data.\nWHAT={what}\nMODE={mode}\nUID=0\n");
            fake.write("run/systemd/inhibit/7", &text);
        };
        for (what, mode) in [("shutdown:idle", "block"), ("sleep", "delay"), ("", "")] {
            inhibit(what, mode);
            assert!(found().unwrap().by_service, "{what} {mode}");
        }
        inhibit("shutdown:sleep", "block");
        assert_eq!(states(), None);
        inhibit("shutdown", "block");
        assert!(states().is_some());
        let target = fake.root.path("etc/systemd/system/sleep.target");
        fs::create_dir_all(target.parent().unwrap()).unwrap();
        std::os::unix::fs::symlink("/dev/null", target).unwrap();
        assert_eq!(states(), None);
    }
}
