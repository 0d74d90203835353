// SPDX-License-Identifier: Apache-2.0 OR BSD-3-Clause

//! All checks of the [`facts`](crate::facts), in order, and the texts of facts.

mod available_memory;
pub(crate) mod backend;
mod bars;
mod config_window;
pub(crate) mod device;
mod dma;
mod dma_width;
pub(crate) mod host_bridge;
pub(crate) mod id;
mod in_use;
mod interrupts;
mod iommu;
pub(crate) mod kept;
mod kernel;
mod kvm;
pub(crate) mod line;
mod memory;
pub(crate) mod open_files;
mod privilege;
mod rebuild;
mod reset;
mod sysfs;
mod units;

use iommufd_backend::CdevKind;

use self::id::Id;
use self::line::{Line, Report, Verdict};
use crate::arch;
use crate::facts::auto_dma::AutoDma;
use crate::facts::backend::{Backend, Route};
use crate::facts::device::cdev_kind;
use crate::facts::iommu::iommus;
use crate::sys_root::SysRoot;
use crate::wanted::{Wanted, WantedDevice};

/// Looks at everything that must hold for a run.
#[must_use]
pub fn check(root: &SysRoot, wanted: &Wanted) -> Report {
    // What the devices need decides; without any, what the machine is.
    let noiommu = match wanted.devices.as_slice() {
        [] => iommus(root).is_empty(),
        devices => devices
            .iter()
            .any(|device| cdev_kind(root, device.bdf) == CdevKind::Noiommu),
    };
    let decision = wanted.decide_backend(root);
    let route = match noiommu {
        true => Route::Noiommu(decision.backend),
        false => Route::Iommu,
    };
    let names = wanted.names();
    let memory = wanted.memory.as_ref();
    let auto = wanted.auto(root);
    let of_hugepages = wanted.needs_hugepages(root, &auto);
    let mut lines = vec![
        kernel::check_version(root, route),
        kernel::check_config(root, route),
        sysfs::check(root),
        privilege::check_seccomp(root),
        arch::check_virtualisation(root),
        kvm::check(root),
        backend::check(root, &decision, route),
        iommu::check_iommufd(root, route),
        backend::check_io_uring(root, route),
        iommu::check_iommu(root, &names, noiommu),
        iommu::check_unsafe_mode(root, &names, route),
        arch::check_encryption(root, noiommu),
        privilege::check_rawio(root, noiommu),
        privilege::check_page_addresses(root, route),
        memory::check_address_map(root),
        config_window::check(root, &wanted.devices),
        privilege::check_memlock(root, memory.map(|memory| memory.bytes), route),
        open_files::check(root, wanted.open_files(root, &auto)),
    ];
    lines.extend(memory::check_hugepages(root, memory, of_hugepages));
    lines.extend([
        available_memory::check(root, memory, of_hugepages),
        memory::check_pinned_memory(root),
        memory::check_memory_errors(root),
        kept::check(root),
        kernel::check_taint(root, noiommu),
        kernel::check_lockdown(root),
    ]);
    for device in &wanted.devices {
        lines.extend(of_device(root, device, wanted, &auto, decision.backend));
    }
    Report { lines }
}

/// All lines about a device of the guest that is `wanted`, where `dma=auto` is decided.
fn of_device(
    root: &SysRoot,
    device: &WantedDevice,
    wanted: &Wanted,
    auto: &AutoDma,
    backend: Backend,
) -> Vec<Line> {
    let mut lines = device::check(root, device.bdf, backend);
    for line in &mut lines {
        if device.allow_no_reset && line.id == Id::DeviceReset && line.verdict == Verdict::Fail {
            // The next command is to accept that, which was done.
            line.verdict = Verdict::Warn;
        }
    }
    // One that is not there, or is none to pass through, has no mode.
    if lines.iter().any(|line| line.id == Id::DeviceInUse) {
        lines.push(dma::check(root, device, &wanted.devices, auto));
    }
    lines
}

#[cfg(test)]
mod tests {
    use std::collections::BTreeSet;

    use super::*;
    use crate::facts::dma_mode::DmaMode;
    use crate::sys_root::tests::Fake;
    use crate::wanted::WantedMemory;

    #[test]
    fn a_machine_that_has_nothing_gets_every_line_with_a_next_command() {
        let fake = Fake::new();
        let report = check(&fake.root, &Wanted::default());
        assert!(!report.is_ok());
        for line in &report.lines {
            assert_eq!(line.hint.is_none(), line.verdict == Verdict::Ok, "{line:?}");
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
            ..Wanted::default()
        };
        let report = check(&fake.root, &wanted);
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
                ..Wanted::default()
            };
            let report = check(&fake.root, &wanted);
            [Id::Hugepages, Id::AvailableMemory, Id::DeviceDmaMode].map(|id| verdict(&report, id))
        };
        use Verdict::{Fail, Ok};
        assert_eq!(judge(DmaMode::Auto), [Ok, Fail, Ok], "it is guarded");
        assert_eq!(judge(DmaMode::Identity), [Fail, Ok, Ok]);
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
                ..Wanted::default()
            };
            verdict(&check(&fake.root, &wanted), Id::DeviceReset)
        };
        assert_eq!(judge(false), Verdict::Fail);
        assert_eq!(judge(true), Verdict::Warn);
    }
}
