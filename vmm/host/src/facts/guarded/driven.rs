// SPDX-License-Identifier: Apache-2.0 OR BSD-3-Clause

//! What the host's own driver shows of an NVMe controller that it has (drivers/nvme/host/sysfs.c). Reading it sends the
//! controller nothing.

use address::Bdf;

use crate::sys_root::SysRoot;

/// A controller that the host's driver has.
#[derive(Clone, Debug, Default, PartialEq, Eq)]
pub(crate) struct Driven {
    /// Whether it works. The driver refuses one whose least page is larger than 4 KiB (`nvme_enable_ctrl`).
    pub is_live: bool,
    /// The other controllers of its subsystem that the host has.
    pub others: Vec<String>,
    /// Its namespaces that a guarded controller does not show, each with the reason.
    pub hidden: Vec<String>,
}

impl Driven {
    /// What the driver shows of `bdf`; `None` if another driver has it, or none.
    pub fn of(root: &SysRoot, bdf: Bdf) -> Option<Self> {
        let directory = format!("sys/bus/pci/devices/{bdf}/nvme");
        let names = root.names(&directory);
        let name = names.iter().find(|name| is_controller(name))?;
        let controller = format!("{directory}/{name}");
        Some(Self {
            is_live: root.word(format!("{controller}/state")) == "live",
            others: others(root, name),
            hidden: root
                .names(&controller)
                .iter()
                .filter_map(|entry| hidden(root, &format!("{controller}/{entry}")))
                .collect(),
        })
    }
}

/// `nvme` and a number.
fn is_controller(name: &str) -> bool {
    name.strip_prefix("nvme").is_some_and(|number| {
        !number.is_empty() && number.bytes().all(|byte| byte.is_ascii_digit())
    })
}

/// The controllers that are in a subsystem with `name`.
fn others(root: &SysRoot, name: &str) -> Vec<String> {
    const SUBSYSTEMS: &str = "sys/class/nvme-subsystem";
    let subsystems = root.names(SUBSYSTEMS).into_iter();
    let controllers = subsystems.map(|subsystem| {
        let mut members = root.names(format!("{SUBSYSTEMS}/{subsystem}"));
        members.retain(|member| is_controller(member));
        members
    });
    let own = controllers
        .into_iter()
        .find(|members| members.iter().any(|member| member == name));
    let mut others = own.unwrap_or_default();
    others.retain(|other| other != name);
    others
}

/// Why the namespace whose directory this is would be hidden; `None` if it would not, or is none.
fn hidden(root: &SysRoot, directory: &str) -> Option<String> {
    let number = |name: &str| -> Option<u32> {
        let word = root.word(format!("{directory}/{name}"));
        word.parse().ok()
    };
    let nsid = number("nsid")?;
    if number("csi").is_some_and(|set| set != 0) {
        return Some(format!("namespace {nsid} has another command set than NVM"));
    }
    let has_metadata = number("metadata_bytes").is_some_and(|bytes| bytes > 0);
    has_metadata.then(|| format!("namespace {nsid} has metadata"))
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::sys_root::tests::Fake;

    const CONTROLLER: &str = "sys/bus/pci/devices/0000:01:00.0/nvme/nvme3";

    fn bdf() -> Bdf {
        "01:00.0".parse().unwrap()
    }

    #[test]
    fn only_a_controller_that_the_host_drives_is_known() {
        let fake = Fake::new();
        assert_eq!(Driven::of(&fake.root, bdf()), None);
        fake.write(&format!("{CONTROLLER}/state"), "live\n");
        let found = Driven::of(&fake.root, bdf()).unwrap();
        assert!(found.is_live && found.others.is_empty() && found.hidden.is_empty());
        fake.write(&format!("{CONTROLLER}/state"), "resetting\n");
        assert!(!Driven::of(&fake.root, bdf()).unwrap().is_live);
    }

    #[test]
    fn controllers_of_other_subsystems_do_not_count() {
        let fake = Fake::new();
        fake.directory(CONTROLLER);
        for (subsystem, members) in [
            (0, &["nvme1", "nvme2"][..]),
            (1, &["nvme3", "nvme3n1", "nvme10"]),
        ] {
            for member in members {
                let path = format!("sys/class/nvme-subsystem/nvme-subsys{subsystem}/{member}");
                fake.directory(&path);
            }
        }
        let found = Driven::of(&fake.root, bdf()).unwrap();
        assert_eq!(found.others, ["nvme10"]);
    }

    #[test]
    fn namespaces_with_metadata_or_another_command_set_are_hidden() {
        let fake = Fake::new();
        for (name, nsid, csi, metadata) in [
            ("nvme3n1", "1", "0", "0"),
            ("nvme3c3n2", "2", "0", "8"),
            ("nvme3n3", "3", "2", "0"),
        ] {
            for (file, text) in [("nsid", nsid), ("csi", csi), ("metadata_bytes", metadata)] {
                fake.write(&format!("{CONTROLLER}/{name}/{file}"), text);
            }
        }
        // Older kernels show neither.
        fake.write(&format!("{CONTROLLER}/nvme3n4/nsid"), "4");
        let found = Driven::of(&fake.root, bdf()).unwrap();
        assert_eq!(
            found.hidden,
            [
                "namespace 2 has metadata",
                "namespace 3 has another command set than NVM"
            ]
        );
    }
}
