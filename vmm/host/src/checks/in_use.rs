// SPDX-License-Identifier: Apache-2.0 OR BSD-3-Clause

//! Texts for the host's uses of a PCI function.

use std::fmt;

use crate::facts::uses::{Holder, Use};

impl fmt::Display for Use {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        match self {
            Self::Mounted { block, at } => write!(f, "{block} is mounted on {at}"),
            Self::Swap { block } => write!(f, "{block} is used for swap"),
            Self::MountedElsewhere { block, at, process } => write!(
                f,
                "{block} is mounted on {at} in the mount namespace of process {process}"
            ),
            Self::Held { block, by } => write!(f, "{block} is held by {by}"),
            Self::DefaultRoute { interface } => {
                write!(f, "the default route goes through {interface}")
            }
            Self::Network { interface, network } => {
                write!(f, "{interface} is up and reaches {network}")
            }
            Self::Member { interface, of } => write!(f, "{interface} is up and belongs to {of}"),
            Self::Open { node, process } => write!(f, "process {process} has {node} open"),
            Self::VirtualFunctions { count, .. } => {
                write!(f, "{count} of its virtual functions are enabled")
            }
        }
    }
}

impl Use {
    /// The command that ends it.
    #[must_use]
    pub fn hint(&self) -> String {
        match self {
            Self::Mounted { at, .. } => format!("umount {at}"),
            Self::Swap { block } => format!("swapoff /dev/{block}"),
            Self::MountedElsewhere { at, process, .. } => {
                format!("nsenter -t {process} -m umount {at}")
            }
            Self::Held { block, .. } => format!("lsblk /dev/{block}"),
            Self::DefaultRoute { interface } => format!("ip route del default dev {interface}"),
            Self::Network { interface, .. } => format!("ip link set dev {interface} down"),
            Self::Member { interface, .. } => format!("ip link set dev {interface} nomaster"),
            Self::Open { process, .. } => format!("kill {process}"),
            Self::VirtualFunctions { bdf, .. } => {
                format!("echo 0 > /sys/bus/pci/devices/{bdf}/sriov_numvfs")
            }
        }
    }
}

impl fmt::Display for Holder {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        match self {
            Self::Block(name) => f.write_str(name),
            Self::Btrfs(id) => write!(f, "the btrfs file system {id}"),
            Self::Bcachefs(id) => write!(f, "the bcachefs file system {id}"),
            Self::Zfs(pools) => write!(f, "maybe a ZFS pool ({})", pools.join(", ")),
            Self::Export(directory) => write!(f, "the export {directory}"),
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn each_use_has_a_command_that_ends_it() {
        let (block, at, process) = ("sda".to_owned(), "/data".to_owned(), 77);
        let (interface, network) = ("eth0".to_owned(), "10.0.2.0/24".to_owned());
        let by = Holder::Block("dm-0".into());
        let bdf = "01:00.0".parse().unwrap();
        for (found, hint) in [
            (
                Use::Swap {
                    block: block.clone(),
                },
                "swapoff /dev/sda",
            ),
            (
                Use::Held {
                    block: block.clone(),
                    by,
                },
                "lsblk /dev/sda",
            ),
            (
                Use::Mounted {
                    block: block.clone(),
                    at: at.clone(),
                },
                "umount /data",
            ),
            (
                Use::MountedElsewhere { block, at, process },
                "nsenter -t 77 -m umount /data",
            ),
            (
                Use::DefaultRoute {
                    interface: interface.clone(),
                },
                "ip route del default dev eth0",
            ),
            (
                Use::Network {
                    interface: interface.clone(),
                    network,
                },
                "ip link set dev eth0 down",
            ),
            (
                Use::Member {
                    interface,
                    of: "br0".to_owned(),
                },
                "ip link set dev eth0 nomaster",
            ),
            (
                Use::Open {
                    node: "/dev/x".to_owned(),
                    process,
                },
                "kill 77",
            ),
            (
                Use::VirtualFunctions { bdf, count: 2 },
                "echo 0 > /sys/bus/pci/devices/0000:01:00.0/sriov_numvfs",
            ),
        ] {
            assert_eq!(found.hint(), hint);
        }
    }

    #[test]
    fn what_holds_a_device_is_named() {
        let text = |by| {
            let block = "sda".to_owned();
            Use::Held { block, by }.to_string()
        };
        let id = || "uuid".to_owned();
        assert_eq!(text(Holder::Block("dm-0".into())), "sda is held by dm-0");
        assert_eq!(
            text(Holder::Btrfs(id())),
            "sda is held by the btrfs file system uuid"
        );
        assert_eq!(
            text(Holder::Bcachefs(id())),
            "sda is held by the bcachefs file system uuid"
        );
        let pools = vec!["tank".to_owned(), "pool".to_owned()];
        assert_eq!(
            text(Holder::Zfs(pools)),
            "sda is held by maybe a ZFS pool (tank, pool)"
        );
        assert_eq!(
            text(Holder::Export("/sys/x".into())),
            "sda is held by the export /sys/x"
        );
    }
}
