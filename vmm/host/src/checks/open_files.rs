// SPDX-License-Identifier: Apache-2.0 OR BSD-3-Clause

//! Checks the limit on open files.

use crate::checks::id::Id;
use crate::checks::line::Line;
use crate::facts::open_files::OpenFiles;
use crate::facts::privilege::limit;
use crate::sys_root::SysRoot;

/// What lets a process open `need` files.
#[must_use]
pub fn open_files_hint(need: u64) -> String {
    format!(
        "raise the hard limit on open files: ulimit -n {need} as root, LimitNOFILE={need} in a systemd \
         unit, or --ulimit nofile={need} of a container"
    )
}

/// [`Id::OpenFiles`], for what a run is known to open files for.
pub(crate) fn check(root: &SysRoot, files: OpenFiles) -> Line {
    let id = Id::OpenFiles;
    let need = files.needed(root);
    let guarded = match files.guarded {
        0 => String::new(),
        count => format!(
            " ({} of them for {count} guarded NVMe controllers and one CPU; each further CPU needs {} more)",
            files.of_guarded(),
            count + 1
        ),
    };
    // A run raises the soft limit to the hard one.
    match limit(root, "Max open files").map(|limit| limit.hard) {
        Some(Some(limit)) if limit < need => Line::fail(
            id,
            format!("A run needs up to {need} open files{guarded}, but the hard limit is {limit}"),
            open_files_hint(need),
        ),
        Some(Some(limit)) => Line::ok(
            id,
            format!(
                "A run needs up to {need}{guarded}, and one for each MSI-X vector; the limit is {limit}"
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
        let files = |devices, guarded| OpenFiles {
            devices,
            guarded,
            cpus: 1,
            rings: 0,
        };
        let judge = |limits: &str, devices| {
            fake.write("proc/self/limits", limits);
            check(&fake.root, files(devices, 0))
        };
        assert_eq!(judge("", 1).verdict, Verdict::Warn);
        let need = files(2, 0).needed(&fake.root);
        let hard = |hard: u64| {
            format!("Max open files            20                   {hard}                files\n")
        };
        assert_eq!(judge(&hard(need), 2).verdict, Verdict::Ok);
        let line = judge(&hard(need - 1), 2);
        assert_eq!(line.verdict, Verdict::Fail);
        assert!(line.hint.unwrap().contains(&format!("ulimit -n {need} ")));
        let none = hard(7).replace('7', "unlimited");
        assert_eq!(judge(&none, 2).verdict, Verdict::Ok);
        fake.write("proc/self/limits", &hard(need));
        let line = check(&fake.root, files(2, 2));
        assert_eq!(line.verdict, Verdict::Fail);
        assert!(
            line.text.contains("8 of them for 2 guarded NVMe"),
            "{line:?}"
        );
    }
}
