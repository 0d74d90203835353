// SPDX-License-Identifier: Apache-2.0 OR BSD-3-Clause

//! The parts of the host's physical address map that the guest's repeats: where BARs are and where
//! config space is. Repeating them keeps BARs at their host addresses and everything clear of RAM,
//! which is the host's too.

use std::ops::Range;

use address::{BusAddr, Gpa, Hpa};
use devices::pci::{self, BusWindow, BusWindows};
use host::{BusRange, CONFIG_WINDOW_LIMIT, DmaMap};
use iommufd_backend::IoMem;

use crate::arch::{HostBridges, layout};

/// Smallest piece of a window that is described to the guest.
const PAGE: u64 = 4096;

/// Guest-physical addresses that follow from the host's map.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct AddressMap {
    /// Where BARs may be, ascending.
    pub windows: Vec<Range<Gpa>>,
    /// Which addresses on the bus those are.
    pub bus_windows: BusWindows,
    /// Where memory in the identity layout is for devices.
    pub dma: DmaMap,
    /// Config space of bus 0.
    pub ecam: Range<Gpa>,
    /// Whether devices see what is in the CPU's caches.
    pub is_coherent: bool,
}

/// No address is free for config space.
#[derive(Clone, Copy, Debug, PartialEq, Eq, thiserror::Error)]
#[error(
    "The host's physical address map has no free range of 1 MiB below HPA {} for the guest's PCI \
     config space",
    CONFIG_WINDOW_LIMIT
)]
pub struct NoEcamError;

impl AddressMap {
    /// Derives the guest's map from the host's, and from its `bridges`; windows are cut around config
    /// space. `bars` are those of the devices to pass through; one that no bridge window of the host
    /// contains gets its own window.
    ///
    /// # Errors
    /// `NoEcamError`
    pub(crate) fn new(
        host: &IoMem,
        bridges: HostBridges,
        bars: &[Range<Hpa>],
    ) -> Result<Self, NoEcamError> {
        let identity = |range: Range<Hpa>| Gpa(range.start.0)..Gpa(range.end.0);
        let ecam = layout::config_space(host, bars).ok_or(NoEcamError)?;
        let ram: Vec<_> = host.system_ram().map(identity).collect();
        let fixed = layout::FIXED.map(|(_, range)| range);
        let mut on_bus = bridges.windows;
        for bar in bars {
            let inside =
                |window: &BusRange| window.cpu.start <= bar.start && bar.end <= window.cpu.end;
            if !on_bus.iter().any(inside) {
                let cpu = bar.start.align_down(PAGE)..bar.end.align_up(PAGE).unwrap_or(bar.end);
                let bus = BusAddr::identity(cpu.start);
                on_bus.push(BusRange { cpu, bus });
            }
        }
        let windows = on_bus.iter().map(|window| identity(window.cpu.clone()));
        let mut windows: Vec<_> = windows.collect();
        for hole in fixed.iter().chain([&ecam]).chain(&ram) {
            windows = windows
                .into_iter()
                .flat_map(|window| without(&window, hole))
                .collect();
        }
        windows.sort_unstable_by_key(|window| window.start);
        Ok(Self {
            windows,
            ecam,
            bus_windows: bus_windows(&on_bus),
            dma: bridges.dma,
            is_coherent: bridges.is_coherent,
        })
    }
}

impl AddressMap {
    /// The map of a guest whose devices are software, which need not follow the host's.
    #[must_use]
    pub fn conventional() -> Self {
        let ecam = Gpa(0xe000_0000);
        Self {
            windows: vec![Gpa(0xd000_0000)..ecam],
            bus_windows: BusWindows::default(),
            dma: DmaMap::Identity,
            ecam: ecam..ecam + pci::ECAM_SIZE,
            is_coherent: true,
        }
    }

    /// The lowest place in the windows, a multiple of `size` (a power of two), where `size` bytes
    /// touch nothing that is `taken`.
    #[must_use]
    pub fn free(&self, size: u64, taken: &[Range<Gpa>]) -> Option<Gpa> {
        self.windows.iter().find_map(|window| {
            let mut at = window.start.align_up(size)?;
            loop {
                let end = at.checked_add(size).filter(|end| *end <= window.end)?;
                match taken
                    .iter()
                    .find(|range| range.start < end && at < range.end)
                {
                    Some(range) => at = range.end.align_up(size)?,
                    None => return Some(at),
                }
            }
        })
    }
}

/// The same for the guest's bus; none if no address is another on the bus.
fn bus_windows(windows: &[BusRange]) -> BusWindows {
    let all = windows.iter().map(|window| BusWindow {
        cpu: Gpa(window.cpu.start.0)..Gpa(window.cpu.end.0),
        bus: window.bus,
    });
    match windows.iter().any(|window| window.offset() != 0) {
        true => all.collect(),
        false => BusWindows::default(),
    }
}

/// What is left of `window` outside `hole`, in whole pages.
fn without(window: &Range<Gpa>, hole: &Range<Gpa>) -> impl Iterator<Item = Range<Gpa>> + use<> {
    let before = window.start..window.end.min(hole.start);
    let after = window.start.max(hole.end)..window.end;
    [before, after].into_iter().filter_map(|rest| {
        let start = rest.start.align_up(PAGE)?;
        let end = rest.end.align_down(PAGE);
        (start < end).then_some(start..end)
    })
}

#[cfg(test)]
mod tests {
    use std::io::Write;

    use super::*;

    const HOST: &str = "\
00001000-0009fbff : System RAM
000a0000-000bffff : PCI Bus 0000:00
00100000-7ffdefff : System RAM
80000000-afffffff : PCI Bus 0000:00
b0000000-bfffffff : PCI ECAM 0000 [bus 00-ff]
c0000000-feefffff : PCI Bus 0000:00
c000000000-c7ffffffff : PCI Bus 0000:00
";

    fn iomem(text: &str) -> IoMem {
        let mut file = tempfile::NamedTempFile::new().unwrap();
        file.write_all(text.as_bytes()).unwrap();
        IoMem::read(file.path()).unwrap()
    }

    fn map_of(host: &IoMem, bars: &[Range<Hpa>]) -> Result<AddressMap, NoEcamError> {
        let windows = host.bridge_windows().map(|cpu| BusRange {
            bus: BusAddr::identity(cpu.start),
            cpu,
        });
        let bridges = HostBridges {
            windows: windows.collect(),
            dma: DmaMap::Identity,
            is_coherent: true,
        };
        AddressMap::new(host, bridges, bars)
    }

    #[test]
    fn windows_are_the_hosts_without_what_is_taken() {
        let map = map_of(&iomem(HOST), &[]).unwrap();
        assert_eq!(map.ecam, Gpa(0xb000_0000)..Gpa(0xb010_0000));
        assert_eq!(
            map.windows,
            [
                Gpa(0x8000_0000)..Gpa(0xb000_0000),
                Gpa(0xc000_0000)..Gpa(0xfec0_0000),
                Gpa(0xfec0_1000)..Gpa(0xfee0_0000),
                Gpa(0xfee0_1000)..Gpa(0xfef0_0000),
                Gpa(0xc0_0000_0000)..Gpa(0xc8_0000_0000),
            ]
        );
    }

    #[test]
    fn a_bar_outside_all_windows_gets_its_own() {
        let bar = Hpa(0xd0_0000_0800)..Hpa(0xd0_0000_0900);
        let inside = Hpa(0xc000_0000)..Hpa(0xc000_1000);
        let map = map_of(&iomem(HOST), &[bar, inside]).unwrap();
        assert_eq!(map.windows.len(), 6);
        assert_eq!(map.windows[5], Gpa(0xd0_0000_0000)..Gpa(0xd0_0000_1000));
    }

    #[test]
    fn windows_keep_their_addresses_on_the_bus() {
        let moved = BusRange {
            cpu: Hpa(0x6_0000_0000)..Hpa(0x6_4000_0000),
            bus: BusAddr(0xc000_0000),
        };
        let map = |windows| {
            let bridges = HostBridges {
                windows,
                ..HostBridges::default()
            };
            AddressMap::new(&iomem(HOST), bridges, &[Hpa(0x9000_0000)..Hpa(0x9000_1000)]).unwrap()
        };
        let map_with = map(vec![moved]);
        let at = |gpa| map_with.bus_windows.to_bus(Gpa(gpa));
        assert_eq!(at(0x6_0000_1000), Some(BusAddr(0xc000_1000)));
        assert_eq!(at(0x9000_0000), Some(BusAddr(0x9000_0000)));
        assert_eq!(at(0x6_4000_0000), None);
        assert_eq!(map(Vec::new()).bus_windows, BusWindows::default());
    }

    #[test]
    fn without_a_host_ecam_a_free_mib_serves() {
        let text = HOST
            .replace("PCI ECAM 0000 [bus 00-ff]", "Reserved")
            .replace("feefffff", "f7ffffff");
        let map = map_of(&iomem(&text), &[]).unwrap();
        assert_eq!(map.ecam, Gpa(0xfeb0_0000)..Gpa(0xfec0_0000));
        let full = "00000000-ffffffff : Reserved\n";
        let error = map_of(&iomem(full), &[]).unwrap_err();
        assert!(
            error.to_string().contains("below HPA 0xfec00000"),
            "{error}"
        );
    }

    #[test]
    fn a_host_ecam_that_no_guest_can_have_hides_no_free_mib() {
        let free = Gpa(0xfeb0_0000)..Gpa(0xfec0_0000);
        for own in ["b0080000-bfffffff", "c800000000-c80fffffff"] {
            let text = HOST
                .replace("b0000000-bfffffff", own)
                .replace("feefffff", "f7ffffff");
            let map = map_of(&iomem(&text), &[]).unwrap();
            assert_eq!(map.ecam, free, "{own}");
        }
    }

    /// What Linux shows on QEMU's machine `pc`, which has no ECAM and whose window leaves nothing free.
    const WITHOUT_ECAM: &str = "\
00000000-00000fff : Reserved
00001000-0009fbff : System RAM
000a0000-000bffff : PCI Bus 0000:00
00100000-7ffdefff : System RAM
7ffdf000-7fffffff : Reserved
80000000-febfffff : PCI Bus 0000:00
  fe000000-fe7fffff : PCI Bus 0000:01
  fe800000-fe803fff : 0000:00:03.0
  febf0000-febf0fff : 0000:00:02.0
fec00000-fec003ff : IOAPIC 0
fee00000-fee00fff : Local APIC
";

    #[test]
    fn without_a_free_mib_a_piece_of_a_window_serves() {
        let map = map_of(&iomem(WITHOUT_ECAM), &[]).unwrap();
        assert_eq!(map.ecam, Gpa(0xfea0_0000)..Gpa(0xfeb0_0000));
        assert_eq!(
            map.windows,
            [
                Gpa(0x8000_0000)..Gpa(0xfea0_0000),
                Gpa(0xfeb0_0000)..Gpa(0xfec0_0000),
            ]
        );
        // A BAR that the map does not show, from the middle of one MiB to the middle of the next.
        let bar = Hpa(0xfe98_0000)..Hpa(0xfea8_0000);
        let map = map_of(&iomem(WITHOUT_ECAM), &[bar]).unwrap();
        assert_eq!(map.ecam, Gpa(0xfdf0_0000)..Gpa(0xfe00_0000));
    }

    #[test]
    fn free_places_are_aligned_and_clear() {
        let map = AddressMap {
            windows: vec![
                Gpa(0x1000_1000)..Gpa(0x1000_8000),
                Gpa(0x2000_0000)..Gpa(0x3000_0000),
            ],
            ecam: Gpa(0)..Gpa(0),
            ..AddressMap::conventional()
        };
        assert_eq!(map.free(0x1000, &[]), Some(Gpa(0x1000_1000)));
        assert_eq!(map.free(0x4000, &[]), Some(Gpa(0x1000_4000)));
        let taken = [
            Gpa(0x1000_5000)..Gpa(0x1000_5010),
            Gpa(0x2000_0000)..Gpa(0x2000_0001),
        ];
        assert_eq!(map.free(0x4000, &taken), Some(Gpa(0x2000_4000)));
        assert_eq!(map.free(0x1000_0000, &taken), None);
    }
}
