//! All checks in order.

pub(crate) mod cpu;
mod device;
mod dma;
pub(crate) mod id;
mod interrupts;
pub(crate) mod kept;
mod kernel;
pub(crate) mod kvm;
pub(crate) mod line;
pub(crate) mod memory;
mod nodes;
pub(crate) mod open_files;
pub(crate) mod privilege;
mod reset;
mod sysfs;

use self::id::Id;
use self::line::{Line, Report, Verdict};
use crate::facts::{available_memory, config_window};
use crate::sys_root::Host;
use crate::wanted::{Wanted, WantedDevice};

/// Looks at everything that must hold for a run.
#[must_use]
pub fn check(host: &Host, wanted: &Wanted) -> Report {
    // What the devices need decides; without any, what the machine is.
    let noiommu = match wanted.devices.as_slice() {
        [] => !host.has_iommu(),
        devices => devices
            .iter()
            .any(|device| !host.is_behind_iommu(device.bdf)),
    };
    let names = wanted.names();
    let memory = wanted.memory.as_ref();
    let of_hugepages = wanted.needs_hugepages(host);
    let mut lines = vec![
        kernel::check_version(host, noiommu),
        kernel::check_config(host, noiommu),
        sysfs::check(host),
        privilege::check_seccomp(host),
        cpu::check_virtualisation(host),
        kvm::check(host),
        nodes::check_iommufd(host),
        nodes::check_iommu(host, &names, noiommu),
        nodes::check_unsafe_mode(host, &names, noiommu),
        cpu::check_encryption(host, noiommu),
        privilege::check_rawio(host, noiommu),
        privilege::check_page_addresses(host, noiommu),
        memory::check_address_map(host),
        config_window::check(host, &wanted.devices),
        privilege::check_memlock(host, memory.map(|memory| memory.bytes)),
        open_files::check(host, wanted.devices.len()),
    ];
    lines.extend(memory::check_hugepages(host, memory, of_hugepages));
    lines.extend([
        available_memory::check(host, memory, of_hugepages),
        memory::check_pinned_memory(host),
        memory::check_memory_errors(host),
        kept::check(host),
        kernel::check_taint(host, noiommu),
        kernel::check_lockdown(host),
    ]);
    for device in &wanted.devices {
        lines.extend(of_device(host, device, &wanted.devices));
    }
    Report { lines }
}

/// All lines about a device that goes to one guest with `all`.
fn of_device(host: &Host, device: &WantedDevice, all: &[WantedDevice]) -> Vec<Line> {
    let mut lines = device::check(host, device.bdf);
    for line in &mut lines {
        if device.allow_no_reset && line.id == Id::DeviceReset && line.verdict == Verdict::Fail {
            // The next command is to accept that, which was done.
            line.verdict = Verdict::Warn;
        }
    }
    // One that is not there, or is none to pass through, has no mode.
    if lines.iter().any(|line| line.id == Id::DeviceInUse) {
        lines.push(dma::check(host, device, all));
    }
    lines
}

#[cfg(test)]
mod tests {
    use std::collections::BTreeSet;

    use super::*;
    use crate::sys_root::tests::Fake;
    use crate::wanted::{DmaMode, WantedMemory};

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
            devices: vec![disk.into()],
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

    fn verdict(report: &Report, id: Id) -> Verdict {
        let line = report.lines.iter().find(|line| line.id == id);
        line.unwrap().verdict
    }

    #[test]
    fn the_mode_decides_what_memory_is_needed() {
        let fake = Fake::new();
        let disk = fake.disk();
        fake.directory("sys/kernel/mm/hugepages/hugepages-2048kB");
        fake.write("proc/meminfo", "MemAvailable: 1024 kB\n");
        let judge = |dma| {
            let wanted = Wanted {
                devices: vec![WantedDevice { dma, ..disk.into() }],
                memory: Some(WantedMemory {
                    bytes: 64 << 20,
                    hugepage_size: None,
                }),
            };
            let report = check(&fake.host, &wanted);
            [Id::Hugepages, Id::AvailableMemory, Id::DeviceDmaMode].map(|id| verdict(&report, id))
        };
        use Verdict::{Fail, Ok};
        assert_eq!(judge(DmaMode::Auto), [Fail, Ok, Ok]);
        assert_eq!(judge(DmaMode::Mediate), [Ok, Fail, Ok]);
        assert_eq!(judge(DmaMode::Translate), [Ok, Fail, Ok]);
        assert_eq!(judge(DmaMode::Iommu)[2], Fail);
    }

    #[test]
    fn a_missing_reset_can_be_accepted() {
        let fake = Fake::new();
        let real = "sys/devices/pci0000:00/0000:00:03.0";
        fake.write(&format!("{real}/class"), "0x00ff00");
        fake.link("sys/bus/pci/devices/0000:00:03.0", real);
        let bdf: address::Bdf = "00:03.0".parse().unwrap();
        let judge = |allow_no_reset| {
            let wanted = Wanted {
                devices: vec![WantedDevice {
                    allow_no_reset,
                    ..bdf.into()
                }],
                memory: None,
            };
            verdict(&check(&fake.host, &wanted), Id::DeviceReset)
        };
        assert_eq!(judge(false), Verdict::Fail);
        assert_eq!(judge(true), Verdict::Warn);
    }
}
