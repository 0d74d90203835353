// SPDX-License-Identifier: Apache-2.0 OR BSD-3-Clause

//! Checks which memory a PCI function can address.

use address::{Bdf, BusAddr};
use iommufd_backend::CdevKind;

use crate::arch;
use crate::checks::id::Id;
use crate::checks::line::Line;
use crate::checks::units::size;
use crate::facts::device::cdev_kind;
use crate::facts::memory::end_of_memory;
use crate::sys_root::SysRoot;

/// [`Id::DeviceDmaWidth`]
pub(crate) fn check(root: &SysRoot, bdf: Bdf) -> Line {
    let id = Id::DeviceDmaWidth;
    let width = root.pci().dma_width(bdf);
    let memory = end_of_memory(root);
    // A bridge that cannot be understood has a line of its own.
    let end = match arch::described_bridge(root, bdf) {
        Ok(Some(bridge)) => bridge.dma.end_of(memory),
        Ok(None) | Err(_) => BusAddr::identity(memory),
    };
    let bits = match width.known() {
        Some(bits) => format!("{bits} address bits, as the last driver on the host requested"),
        None => format!(
            "{} address bits, assumed because the host kernel reports none",
            width.bits()
        ),
    };
    if cdev_kind(root, bdf) == CdevKind::Iommu {
        return Line::ok(id, format!("{bits}; an IOMMU translates"));
    }
    if width.reaches(end) {
        return Line::ok(id, format!("{bits}; host memory ends at {end}"));
    }
    Line::warn(
        id,
        format!(
            "{bits} (32 if it never had one), and host memory ends at {end}: a guest without \
             memory below {} may not be able to use it",
            size(1_u64.checked_shl(width.bits()).unwrap_or(u64::MAX))
        ),
        format!("pinvisor plan --noiommu --device {bdf} ...  # shows what is below 4 GiB"),
    )
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::checks::line::Verdict;
    use crate::sys_root::tests::Fake;

    const BELOW: &str = "sys/devices/pci0000:00/0000:00:08.0";

    #[test]
    fn dma_reaches_as_far_as_the_kernel_reports_whatever_the_bus() {
        let fake = Fake::new();
        let disk = fake.disk();
        let width = || check(&fake.root, disk);
        fake.write("proc/iomem", "00001000-7fffffff : System RAM\n");
        assert_eq!(width().verdict, Verdict::Ok);
        fake.write("proc/iomem", "100000000-1ffffffff : System RAM\n");
        // A PCI Express function, of which the kernel reports nothing, 32 and 64 bits.
        fake.write(&format!("{BELOW}/0000:01:00.0/max_link_speed"), "8");
        assert_eq!(width().verdict, Verdict::Warn);
        for (bits, verdict) in [("32\n", Verdict::Warn), ("64\n", Verdict::Ok)] {
            fake.write(&format!("{BELOW}/0000:01:00.0/dma_mask_bits"), bits);
            assert_eq!(width().verdict, verdict, "{bits}");
            assert!(width().text.starts_with(bits.trim()));
        }
        // A conventional one with 40 bits.
        std::fs::remove_file(
            fake.dir
                .path()
                .join(BELOW)
                .join("0000:01:00.0/max_link_speed"),
        )
        .unwrap();
        fake.write(&format!("{BELOW}/0000:01:00.0/dma_mask_bits"), "40\n");
        assert_eq!(width().verdict, Verdict::Ok);
        fake.write("proc/iomem", "100000000-1ffffffffff : System RAM\n");
        let narrow = width();
        assert_eq!(narrow.verdict, Verdict::Warn);
        assert!(narrow.text.contains("below 1 TiB"), "{}", narrow.text);
        fake.link(
            &format!("{BELOW}/0000:01:00.0/iommu_group"),
            "sys/kernel/iommu_groups/7",
        );
        fake.directory("sys/kernel/iommu_groups/7");
        assert_eq!(width().verdict, Verdict::Ok);
    }
}
