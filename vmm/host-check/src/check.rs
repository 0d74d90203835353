//! All checks in order.

use address::Bdf;
use iommufd_backend::hugepages::HugepageSize;

use crate::host::Host;
use crate::line::Report;
use crate::{cpu, device, kept, kernel, kvm, memory, nodes, privilege};

/// Guest memory that a run is to have.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct WantedMemory {
    /// Bytes.
    pub bytes: u64,
    /// What it is made of, where that was said.
    pub hugepage_size: Option<HugepageSize>,
}

/// What is to be run.
#[derive(Clone, Debug, Default, PartialEq, Eq)]
pub struct Wanted {
    /// Devices to pass through.
    pub devices: Vec<Bdf>,
    /// Guest memory, if known.
    pub memory: Option<WantedMemory>,
}

/// Looks at everything that must hold for a run.
#[must_use]
pub fn check(host: &Host, wanted: &Wanted) -> Report {
    // What the devices need decides; without any, what the machine is.
    let noiommu = match wanted.devices.as_slice() {
        [] => !host.has_iommu(),
        devices => devices.iter().any(|bdf| !host.is_behind_iommu(*bdf)),
    };
    let memory = wanted.memory.as_ref();
    let mut lines = vec![
        kernel::check_version(host, noiommu),
        kernel::check_config(host, noiommu),
        cpu::check_virtualisation(host),
        kvm::check(host),
        nodes::check_iommufd(host),
        nodes::check_iommu(host, &wanted.devices, noiommu),
        nodes::check_unsafe_mode(host, &wanted.devices, noiommu),
        cpu::check_encryption(host, noiommu),
        privilege::check_rawio(host, noiommu),
        privilege::check_page_addresses(host, noiommu),
        memory::check_address_map(host),
        privilege::check_memlock(host, memory.map(|memory| memory.bytes)),
    ];
    lines.extend(memory::check_hugepages(host, memory, noiommu));
    lines.extend([
        memory::check_pinned_memory(host),
        memory::check_memory_errors(host),
        kept::check(host),
        kernel::check_taint(host, noiommu),
        kernel::check_lockdown(host),
    ]);
    for bdf in &wanted.devices {
        lines.extend(device::check(host, *bdf));
    }
    Report { lines }
}

#[cfg(test)]
mod tests {
    use std::collections::BTreeSet;

    use super::*;
    use crate::host::tests::Fake;
    use crate::id::Id;
    use crate::line::Verdict;

    #[test]
    fn a_machine_that_has_nothing_gets_every_line_with_a_next_command() {
        let fake = Fake::new();
        let report = check(&fake.host, &Wanted::default());
        assert!(!report.is_ok());
        for line in &report.lines {
            assert_eq!(line.next.is_none(), line.verdict == Verdict::Ok, "{line:?}");
        }
    }

    #[test]
    fn every_check_is_made_once_in_the_order_of_the_names() {
        let fake = Fake::new();
        let disk = fake.disk();
        fake.directory("sys/bus/pci/drivers/vfio-pci");
        fake.link(
            "sys/bus/pci/devices/0000:01:00.0/driver",
            "sys/bus/pci/drivers/vfio-pci",
        );
        let wanted = Wanted {
            devices: vec![disk],
            memory: Some(WantedMemory {
                bytes: 1 << 30,
                hugepage_size: None,
            }),
        };
        let report = check(&fake.host, &wanted);
        let ids: Vec<Id> = report.lines.iter().map(|line| line.id).collect();
        assert_eq!(ids, Id::all().collect::<Vec<_>>());
        assert_eq!(ids.iter().collect::<BTreeSet<_>>().len(), ids.len());
    }
}
