// SPDX-License-Identifier: Apache-2.0 OR BSD-3-Clause

//! Checks whether the guest's memory-mapped PCI config space has an address.

use std::ops::Range;

use address::Hpa;
use iommufd_backend::memory_bars;

use crate::arch;
use crate::checks::id::Id;
use crate::checks::line::Line;
use crate::facts::config_window::{CONFIG_WINDOW_LIMIT, ConfigWindow};
use crate::sys_root::SysRoot;
use crate::wanted::WantedDevice;

/// [`Id::ConfigSpace`]
pub(crate) fn check(root: &SysRoot, devices: &[WantedDevice]) -> Line {
    let id = Id::ConfigSpace;
    let map = match root.iomem() {
        Ok(map) => map,
        Err(error) => {
            return Line::warn(
                id,
                format!("Cannot determine whether it has a free address: {error}"),
                "run as root: sudo pinvisor check",
            );
        }
    };
    if arch::HAS_FIXED_CONFIG_SPACE {
        return Line::ok(
            id,
            "The guest's is where no host has memory or devices, at 448 GiB",
        );
    }
    let bars: Vec<_> = devices
        .iter()
        .flat_map(|device| bars(root, device))
        .collect();
    let own = match map.ecam() {
        None => "The host accesses its own by I/O ports only, 256 bytes of each device".to_owned(),
        Some(own) => format!("The host has its own at HPA {}", own.start),
    };
    match ConfigWindow::find(&map, &bars) {
        Some(window) if window.is_hosts => {
            Line::ok(id, format!("{own}; the guest uses the same address"))
        }
        Some(window) => Line::ok(
            id,
            format!(
                "{own}; the guest uses GPA {}, which is free",
                window.range.start
            ),
        ),
        None => Line::fail(
            id,
            format!(
                "{own}, and no range of 1 MiB below {CONFIG_WINDOW_LIMIT} is free for the guest's"
            ),
            "enable \"Above 4G decoding\" in the host's firmware, or remove a device with large \
             BARs; less /proc/iomem shows the map",
        ),
    }
}

fn bars(root: &SysRoot, device: &WantedDevice) -> Vec<Range<Hpa>> {
    let regions = root.pci().resources(device.bdf).unwrap_or_default();
    memory_bars(&regions).map(|(_, range)| range).collect()
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::checks::line::Verdict;
    use crate::sys_root::tests::Fake;

    const WITH_OWN: &str = "b0000000-bfffffff : PCI ECAM 0000 [bus 00-ff]\n";

    const PORTS: &str = "00000000-7fffffff : System RAM\n80000000-febfffff : PCI Bus 0000:00\n";

    #[test]
    fn the_place_follows_from_the_map() {
        let fake = Fake::new();
        let judge = |map: &str| {
            fake.write("proc/iomem", map);
            check(&fake.root, &[])
        };
        let own = judge(WITH_OWN);
        assert_eq!(own.verdict, Verdict::Ok);
        assert!(
            own.text
                .contains("at HPA 0xb0000000; the guest uses the same")
        );
        let above = judge("c800000000-c80fffffff : PCI ECAM 0000 [bus 00-ff]\n");
        assert!(
            above
                .text
                .contains("0xc800000000; the guest uses GPA 0xfeb00000")
        );
        let ports = judge(PORTS);
        assert!(ports.text.contains("by I/O ports only"), "{}", ports.text);
        assert!(ports.text.contains("0xfeb00000"), "{}", ports.text);
        let full = judge("00000000-ffffffff : Reserved\n");
        assert_eq!(full.verdict, Verdict::Fail);
        assert!(full.text.contains("below 0xfec00000"), "{}", full.text);
        assert_eq!(judge("00000000-00000000 : x\n").verdict, Verdict::Warn);
    }

    #[test]
    fn it_is_clear_of_the_devices_bars() {
        let fake = Fake::new();
        let disk = fake.disk();
        fake.write("proc/iomem", PORTS);
        fake.write(
            "sys/bus/pci/devices/0000:01:00.0/resource",
            "0x00000000feb00000 0x00000000feb03fff 0x0000000000140204\n",
        );
        let place = || check(&fake.root, &[disk.into()]).text;
        assert!(place().contains("0xfea00000"), "{}", place());
        // As in a run, its ROM does not count.
        let rom = "0x00000000feb00000 0x00000000feb03fff 0x0000000000046200\n";
        let lines = ["0x0 0x0 0x0\n"; 6].concat() + rom;
        fake.write("sys/bus/pci/devices/0000:01:00.0/resource", &lines);
        assert!(place().contains("0xfeb00000"), "{}", place());
    }
}
