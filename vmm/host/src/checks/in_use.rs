//! Words what the host uses a PCI function for.

use std::fmt;

use crate::facts::in_use::Use;

impl fmt::Display for Use {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        match self {
            Self::Mounted { block, at } => write!(f, "{block} is mounted on {at}"),
            Self::Swap { block } => write!(f, "{block} is swap"),
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
            Self::Open { node, process } => write!(f, "process {process} has {node} open"),
            Self::VirtualFunctions { count, .. } => {
                write!(f, "{count} of its virtual functions are on")
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
            Self::Open { process, .. } => format!("kill {process}"),
            Self::VirtualFunctions { bdf, .. } => {
                format!("echo 0 > /sys/bus/pci/devices/{bdf}/sriov_numvfs")
            }
        }
    }
}
