// SPDX-License-Identifier: Apache-2.0 OR BSD-3-Clause

//! Checks how a PCI function can be reset.

use address::Bdf;
use iommufd_backend::{BUS_RESET, ResetMethod};

use crate::checks::id::Id;
use crate::checks::line::Line;
use crate::checks::units::names;
use crate::sys_root::SysRoot;

/// [`Id::DeviceReset`]: how a run resets it if all on its bus go to one guest.
pub(crate) fn check(root: &SysRoot, bdf: Bdf) -> Line {
    let id = Id::DeviceReset;
    let method = match root.pci().expected_reset(bdf, |_| true) {
        Ok(method) => method,
        Err(error) => {
            let hint = format!("cat /sys/bus/pci/devices/{bdf}/reset_method");
            return Line::warn(id, error.to_string(), hint);
        }
    };
    match &method {
        ResetMethod::Function(method) if method == BUS_RESET => alone_on_its_bus(None),
        ResetMethod::Function(method) => Line::ok(id, format!("By itself ({method})")),
        ResetMethod::Bus {
            functions,
            instead_of,
        } => {
            let others: Vec<Bdf> = functions.iter().copied().filter(|f| *f != bdf).collect();
            match others.as_slice() {
                [] => alone_on_its_bus(instead_of.as_deref()),
                others => with_its_bus(bdf, others, instead_of.as_deref()),
            }
        }
        ResetMethod::None { .. } => Line::fail(
            id,
            "Neither it nor its bus can be reset: DMA that is still running would continue under its next \
             user",
            format!(
                "pinvisor run --device {bdf},reset=none ...  # accepts this; or move it to a slot \
                 with its own bridge"
            ),
        ),
    }
}

fn alone_on_its_bus(instead_of: Option<&str>) -> Line {
    let own = match instead_of {
        Some(own) => format!("; its own reset, through D3hot ({own}), is unreliable"),
        None => String::new(),
    };
    Line::ok(
        Id::DeviceReset,
        format!("With its bus, on which it is the only function (bus){own}"),
    )
}

fn with_its_bus(bdf: Bdf, others: &[Bdf], instead_of: Option<&str>) -> Line {
    let text = match instead_of {
        Some(own) => format!(
            "Through D3hot ({own}), which may not stop it; a run together with {} resets their bus \
             instead",
            names(others, ", ")
        ),
        None => format!(
            "Only with its bus, together with {}: pass them all through to one guest",
            names(others, ", ")
        ),
    };
    let devices = names(others, " --device ");
    let hint = format!("pinvisor run --device {bdf} --device {devices} ...");
    Line::warn(Id::DeviceReset, text, hint)
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::checks::line::Verdict;
    use crate::sys_root::tests::Fake;

    const BELOW: &str = "sys/devices/pci0000:00/0000:00:08.0";

    /// The line about a disk with these methods, alone on its bus or with another function.
    fn line(methods: Option<&str>, is_alone: bool) -> Line {
        let fake = Fake::new();
        let disk = fake.disk();
        let file = format!("{BELOW}/0000:01:00.0/reset_method");
        match methods {
            Some(methods) => fake.write(&file, methods),
            None => std::fs::remove_file(fake.dir.path().join(file)).unwrap(),
        }
        if !is_alone {
            let real = format!("{BELOW}/0000:01:00.1");
            fake.directory(&real);
            fake.link("sys/bus/pci/devices/0000:01:00.1", &real);
        }
        check(&fake.root, disk)
    }

    #[test]
    fn what_a_run_will_do_is_judged() {
        use Verdict::{Fail, Ok, Warn};
        for (methods, is_alone, verdict, text) in [
            (Some("flr bus\n"), true, Ok, "By itself (flr)"),
            (Some("flr\n"), false, Ok, "By itself (flr)"),
            (
                Some("bus\n"),
                true,
                Ok,
                "on which it is the only function (bus)",
            ),
            (Some("pm bus\n"), true, Ok, "D3hot (pm), is unreliable"),
            (Some("pm\n"), true, Ok, "By itself (pm)"),
            (
                Some("pm bus\n"),
                false,
                Warn,
                "D3hot (pm), which may not stop",
            ),
            (Some("bus\n"), false, Warn, "Only with its bus"),
            (None, false, Warn, "together with 0000:01:00.1"),
            (None, true, Fail, "nor its bus can be reset"),
        ] {
            let line = line(methods, is_alone);
            assert_eq!(line.verdict, verdict, "{methods:?} {is_alone}");
            assert!(line.text.contains(text), "{methods:?}: {}", line.text);
        }
        let hint = line(None, false).hint.unwrap();
        let run = "pinvisor run --device 0000:01:00.0 --device 0000:01:00.1 ...";
        assert_eq!(hint, run);
    }
}
