// SPDX-License-Identifier: Apache-2.0 OR BSD-3-Clause

//! Checks and reports memory that is kept pinned for devices that could not be made quiet.

use keeper::Found;

use crate::checks::id::Id;
use crate::checks::line::Line;
use crate::facts::kept::keepers;
use crate::sys_root::SysRoot;

/// The line about all of them.
pub(crate) fn check(root: &SysRoot) -> Line {
    let found = keepers(root);
    if found.is_empty() {
        return Line::ok(Id::KeptMemory, "None is kept");
    }
    let sentences: Vec<_> = found.iter().map(sentence).collect();
    let hints: Vec<_> = found.iter().map(hint).collect();
    Line::warn(Id::KeptMemory, sentences.join("; "), hints.join("; "))
}

/// What a keeper does.
#[must_use]
pub fn sentence(found: &Found) -> String {
    format!("Process {} keeps {}", found.pid, found.status)
}

/// The command that gives the memory back.
pub(crate) fn hint(found: &Found) -> String {
    let devices = found.status.devices.iter();
    let names: Vec<_> = devices.map(|device| device.bdf.to_string()).collect();
    format!("pinvisor release {}", names.join(" "))
}

#[cfg(test)]
mod tests {
    use keeper::{Kept, Status};

    use super::*;
    use crate::checks::line::Verdict;
    use crate::sys_root::tests::Fake;

    #[test]
    fn without_a_keeper_all_is_well() {
        let fake = Fake::new();
        assert_eq!(check(&fake.root).verdict, Verdict::Ok);
        fake.write("run/pinvisor/keeper-7", "no socket");
        assert_eq!(check(&fake.root).verdict, Verdict::Ok);
    }

    #[test]
    fn a_keeper_is_named_with_a_hint() {
        let kept = |bdf: &str| Kept {
            bdf: bdf.parse().unwrap(),
            parent: None,
            seen_in_slot: false,
            accepted: false,
            through_group: false,
            why: "it does not respond".into(),
        };
        let status = Status {
            bytes: 64 << 20,
            devices: vec![kept("01:00.0"), kept("02:00.0")],
        };
        let found = Found::example(77, status);
        let text = sentence(&found);
        assert!(text.starts_with("Process 77 keeps 64 MiB for 0000:01:00.0 (it does not"));
        assert_eq!(hint(&found), "pinvisor release 0000:01:00.0 0000:02:00.0");
    }
}
