// SPDX-License-Identifier: Apache-2.0 OR BSD-3-Clause

//! The number of files that a run opens.

use iommufd_backend::RingPins;

use crate::facts::backend::Backend;
use crate::sys_root::SysRoot;

/// What a run opens that has no device and no CPU, and what is left for later: the serial port's clients,
/// files of sysfs.
const BASE: u64 = 64;

/// A device: its node, its notices, the eventfds of INTx or of its first message. Every further MSI-X vector
/// that a guest uses is one more; a guest gets fewer vectors where there are too few.
const PER_DEVICE: u64 = 8;

/// A guarded controller besides: the eventfd of its admin queue, its thread's and what that waits with. Every CPU has
/// a queue with an eventfd, which are there from the start.
const PER_GUARDED: u64 = 3;

/// What a run opens files for.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct OpenFiles {
    /// Passed-through devices.
    pub devices: usize,
    /// Those of them that are guarded NVMe controllers.
    pub guarded: usize,
    /// The guest's CPUs.
    pub cpus: u8,
    /// Rings of io_uring that pin guest memory ([`Backend::rings`]).
    pub rings: u64,
}

impl OpenFiles {
    /// Open files that the run needs, those that are open now included.
    #[must_use]
    pub fn needed(&self, root: &SysRoot) -> u64 {
        let open = root.names("proc/self/fd").len() as u64;
        let devices = (self.devices as u64).saturating_mul(PER_DEVICE);
        open.saturating_add(BASE)
            .saturating_add(devices)
            .saturating_add(self.cpus.into())
            .saturating_add(self.of_guarded())
            .saturating_add(self.rings)
    }

    /// Those of them that guarded controllers need.
    #[must_use]
    pub fn of_guarded(&self) -> u64 {
        let each = PER_GUARDED + u64::from(self.cpus);
        (self.guarded as u64).saturating_mul(each)
    }
}

impl Backend {
    /// The most rings of io_uring by which a process pins `bytes` of guest memory.
    #[must_use]
    pub const fn rings(self, bytes: u64) -> u64 {
        match self {
            Self::Cdev => 0,
            Self::Group => RingPins::most_rings(bytes),
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::sys_root::tests::Fake;

    #[test]
    fn what_is_open_already_counts() {
        let fake = Fake::new();
        let one = OpenFiles {
            devices: 1,
            guarded: 0,
            cpus: 1,
            rings: 0,
        };
        let before = one.needed(&fake.root);
        fake.write("proc/self/fd/0", "");
        fake.write("proc/self/fd/1", "");
        assert_eq!(one.needed(&fake.root), before + 2);
        let many = OpenFiles {
            devices: usize::MAX,
            guarded: usize::MAX,
            cpus: u8::MAX,
            rings: u64::MAX,
        };
        assert_eq!(many.needed(&fake.root), u64::MAX);
    }

    #[test]
    fn a_guarded_controller_has_an_eventfd_for_each_cpu() {
        let fake = Fake::new();
        let need = |guarded, cpus| {
            OpenFiles {
                devices: 2,
                guarded,
                cpus,
                rings: 0,
            }
            .needed(&fake.root)
        };
        assert_eq!(need(1, 4) - need(0, 4), 3 + 4);
        assert_eq!(need(2, 32) - need(0, 32), 2 * (3 + 32));
    }

    #[test]
    fn rings_count_where_they_pin_memory() {
        let fake = Fake::new();
        let need = |backend: Backend| {
            OpenFiles {
                devices: 1,
                guarded: 0,
                cpus: 1,
                rings: backend.rings(5 << 30),
            }
            .needed(&fake.root)
        };
        assert_eq!(need(Backend::Group) - need(Backend::Cdev), 10);
    }
}
