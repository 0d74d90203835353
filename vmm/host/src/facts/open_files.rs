// SPDX-License-Identifier: Apache-2.0 OR BSD-3-Clause

//! The number of files that a run opens.

use crate::sys_root::SysRoot;

/// What a run opens that has no device and no CPU, and what is left for later: the serial port's clients,
/// files of sysfs.
const BASE: u64 = 64;

/// A device: its node, its notices, the eventfds of INTx or of its first message. Every further MSI-X vector
/// that a guest uses is one more; a guest gets fewer vectors where there are too few.
const PER_DEVICE: u64 = 8;

/// Open files that a run needs with so many `devices` and `cpus`, those that are open now included.
#[must_use]
pub fn open_files_needed(root: &SysRoot, devices: usize, cpus: u8) -> u64 {
    let open = root.names("proc/self/fd").len() as u64;
    let devices = (devices as u64).saturating_mul(PER_DEVICE);
    open.saturating_add(BASE)
        .saturating_add(devices)
        .saturating_add(cpus.into())
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::sys_root::tests::Fake;

    #[test]
    fn what_is_open_already_counts() {
        let fake = Fake::new();
        let before = open_files_needed(&fake.root, 1, 1);
        fake.write("proc/self/fd/0", "");
        fake.write("proc/self/fd/1", "");
        assert_eq!(open_files_needed(&fake.root, 1, 1), before + 2);
        assert_eq!(open_files_needed(&fake.root, usize::MAX, u8::MAX), u64::MAX);
    }
}
