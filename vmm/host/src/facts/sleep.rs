// SPDX-License-Identifier: Apache-2.0 OR BSD-3-Clause

//! Suspend of the host, which takes power from devices that only their guest could set up again.

use crate::sys_root::SysRoot;

/// The sleep states that this host can enter, unless something keeps it awake: the kernel's names
/// (Linux Documentation/admin-guide/pm/sleep-states.rst).
#[must_use]
pub fn sleep_states(root: &SysRoot) -> Option<String> {
    let states = root.word("sys/power/state");
    (!states.is_empty() && !is_inhibited(root)).then_some(states)
}

/// Whether something blocks sleep by systemd-logind, as `systemd-inhibit --what=sleep` does (systemd
/// src/login/logind-inhibit.c `inhibitor_save`).
fn is_inhibited(root: &SysRoot) -> bool {
    const DIRECTORY: &str = "run/systemd/inhibit";
    root.names(DIRECTORY).into_iter().any(|name| {
        let text = root.text(format!("{DIRECTORY}/{name}")).unwrap_or_default();
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
        let states = || sleep_states(&fake.root);
        assert_eq!(states(), None);
        fake.write("sys/power/state", "\n");
        assert_eq!(states(), None);
        fake.write("sys/power/state", "freeze mem disk\n");
        assert_eq!(states().as_deref(), Some("freeze mem disk"));
        let inhibit = |what: &str, mode: &str| {
            let text = format!("# This is private data.\nWHAT={what}\nMODE={mode}\nUID=0\n");
            fake.write("run/systemd/inhibit/7", &text);
        };
        for (what, mode) in [("shutdown:idle", "block"), ("sleep", "delay"), ("", "")] {
            inhibit(what, mode);
            assert!(states().is_some(), "{what} {mode}");
        }
        inhibit("shutdown:sleep", "block");
        assert_eq!(states(), None);
    }
}
