// SPDX-License-Identifier: Apache-2.0 OR BSD-3-Clause

//! Possible uses of a PCI function by the host.

use address::Bdf;

/// A use that taking the device away would end.
#[derive(Clone, Debug, PartialEq, Eq)]
pub enum Use {
    /// A file system.
    Mounted {
        /// The block device.
        block: String,
        /// Where it is mounted.
        at: String,
    },
    /// Swap.
    Swap {
        /// The block device.
        block: String,
    },
    /// A file system that is mounted in another mount namespace, such as a container's.
    MountedElsewhere {
        /// The block device.
        block: String,
        /// Where it is mounted there.
        at: String,
        /// A process of that namespace.
        process: u32,
    },
    /// The kernel uses a block device for something else.
    Held {
        /// The block device.
        block: String,
        /// What holds it.
        by: Holder,
    },
    /// The default route.
    DefaultRoute {
        /// The network interface.
        interface: String,
    },
    /// A network that is reached by it.
    Network {
        /// The network interface.
        interface: String,
        /// The network, or the host's address in it, with the length of the prefix.
        network: String,
    },
    /// A bridge, a bond or a VRF that it is part of.
    Member {
        /// The network interface.
        interface: String,
        /// The interface that it belongs to.
        of: String,
    },
    /// A process has its VFIO device open, or a block device of it.
    Open {
        /// The node.
        node: String,
        /// The process.
        process: u32,
    },
    /// Virtual functions of it are on: a reset of it resets them, and its driver may rule them.
    VirtualFunctions {
        /// The function, a physical one.
        bdf: Bdf,
        /// How many are on.
        count: u16,
    },
}

/// What holds a block device.
#[derive(Clone, Debug, PartialEq, Eq)]
pub enum Holder {
    /// Another block device.
    Block(String),
    /// A btrfs file system over several devices, by its ID.
    Btrfs(String),
    /// A bcachefs file system over several devices, by its ID.
    Bcachefs(String),
    /// One of these ZFS pools, perhaps: the kernel shows no list of a pool's devices.
    Zfs(Vec<String>),
    /// An export to other machines, by its directory.
    Export(String),
}
