// SPDX-License-Identifier: Apache-2.0 OR BSD-3-Clause

//! The state that is handed over, as `docs/reference/handover.md` documents it.
//!
//! A file is named by its place among the files beside the packet, of which the state itself is number 0.

use std::fmt;

use address::{Bdf, BusAddr, Gpa, Hpa};
use devices::pci::BusWindow;
use host::{BusRange, DmaMap};
use iommufd_backend::{REGIONS, RegionKind, ResetMethod, Resource};
use serde::{Deserialize, Serialize};

use crate::bus::address_map::AddressMap;

/// The name of the format.
pub const FORMAT: &str = "pinvisor-handover";
/// The version of the format. A receiver takes no other.
pub const VERSION: u32 = 1;
/// Most bytes of the state, in JSON: some 7 million extents.
pub const MOST_BYTES: u64 = 256 << 20;

/// What the packet says of itself.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
pub struct Header {
    /// [`FORMAT`]
    pub format: String,
    /// [`VERSION`]
    pub version: u32,
}

impl Default for Header {
    fn default() -> Self {
        Self {
            format: FORMAT.to_owned(),
            version: VERSION,
        }
    }
}

/// Everything that a run knows once its memory is pinned, and cannot find out again without privilege.
#[derive(Clone, Debug, Default, PartialEq, Eq, Serialize, Deserialize)]
#[serde(deny_unknown_fields, rename_all = "kebab-case")]
pub struct State {
    /// `/dev/iommu`, if there are devices.
    pub iommufd: Option<usize>,
    /// The devices, in the order of the options.
    pub devices: Vec<Device>,
    /// The address space of devices in noiommu mode.
    pub noiommu: Option<Noiommu>,
    /// The number of the I/O address space of devices behind an IOMMU.
    pub iommu_ioas: Option<u32>,
    /// The process that keeps memory pinned for devices in noiommu mode.
    pub keeper: Option<Keeper>,
    /// The number of the process at the other end of the socket, if it is a child of the receiver's.
    pub helper: Option<u32>,
    /// Guest memory, unless the receiver takes it by itself.
    pub memory: Option<Memory>,
    /// The guest's addresses outside RAM, if it has devices.
    pub addresses: Option<Addresses>,
}

/// A device.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
#[serde(deny_unknown_fields, rename_all = "kebab-case")]
pub struct Device {
    /// Its name on the host.
    pub bdf: Name,
    /// Its character device, bound to `/dev/iommu` and attached.
    pub file: usize,
    /// Its number in `/dev/iommu`.
    pub id: u32,
    /// Whether an IOMMU translates for it.
    pub iommu: bool,
    /// How its DMA reaches guest memory.
    pub dma: Dma,
    /// BAR0 to BAR5, then the ROM.
    pub regions: [Option<Region>; REGIONS],
    /// Address bits of its DMA, if known.
    pub dma_width: Option<u32>,
    /// How it is reset.
    pub reset: Reset,
    /// The bridge that it is behind.
    pub parent: Option<Name>,
    /// Whether that bridge reports it in its slot.
    pub seen_in_slot: bool,
    /// The monitor's pages that it accesses, if it is guarded.
    pub own_pages: Option<OwnPages>,
}

/// How DMA reaches guest memory.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Serialize, Deserialize)]
#[serde(rename_all = "kebab-case")]
pub enum Dma {
    /// An IOMMU translates.
    Iommu,
    /// Guest-physical addresses are host-physical ones.
    Identity,
    /// The guest translates.
    Translate,
    /// The monitor translates addresses in registers.
    Mediate,
    /// The monitor checks and translates the commands of an NVMe controller.
    Guarded,
}

/// A BAR or the ROM, as sysfs shows it.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Serialize, Deserialize)]
#[serde(deny_unknown_fields, rename_all = "kebab-case")]
pub struct Region {
    /// I/O ports, not memory.
    pub ports: bool,
    /// Where the host placed it.
    pub start: Option<u64>,
    /// Bytes, or ports.
    pub size: u64,
}

/// How a device is reset: as [`ResetMethod`].
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
#[serde(deny_unknown_fields, rename_all = "kebab-case")]
pub enum Reset {
    /// By itself, in the kernel's word for how.
    Function(String),
    /// Together with all on its bus.
    Bus {
        /// All functions on the bus.
        functions: Vec<Name>,
        /// The device's own reset, which is not trusted.
        instead_of: Option<String>,
    },
    /// Not at all.
    None {
        /// The functions that prevent it.
        others: Vec<Name>,
    },
}

/// Pages of a device's queues.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
#[serde(deny_unknown_fields, rename_all = "kebab-case")]
pub struct OwnPages {
    /// Their file, which cannot be cut short.
    pub file: usize,
    /// Where each page of 4 KiB is.
    pub hpas: Vec<u64>,
}

/// An address space for devices in noiommu mode.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
#[serde(deny_unknown_fields, rename_all = "kebab-case")]
pub struct Noiommu {
    /// The number of the I/O address space in `/dev/iommu`.
    pub ioas: u32,
    /// The number of its page table there.
    pub hwpt: u32,
}

/// A keeper.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
#[serde(deny_unknown_fields, rename_all = "kebab-case")]
pub struct Keeper {
    /// The connection to it.
    pub channel: usize,
    /// Its process, as a pidfd. It watches the receiver.
    pub process: usize,
    /// The number of that process for the sender.
    pub pid: u32,
}

/// Guest memory.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
#[serde(deny_unknown_fields, rename_all = "kebab-case")]
pub struct Memory {
    /// Its file.
    pub file: usize,
    /// Bytes in each of its pages.
    pub page_size: u64,
    /// Offset in the file, host-physical address and length of each extent, in the order of the file. None if no device is
    /// in noiommu mode.
    pub extents: Vec<(u64, u64, u64)>,
}

/// Guest-physical addresses outside RAM: as [`AddressMap`].
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
#[serde(deny_unknown_fields, rename_all = "kebab-case")]
pub struct Addresses {
    /// Begin and end of each window for BARs, ascending.
    pub windows: Vec<(u64, u64)>,
    /// Begin and end of each window of the host bridge for the CPU, and its begin on the bus; none if all addresses are
    /// the same.
    pub bus_windows: Vec<(u64, u64, u64)>,
    /// Begin and end of the memory that devices reach, and its begin on the bus; nothing if they reach all memory at the
    /// CPU's addresses.
    pub dma: Option<Vec<(u64, u64, u64)>>,
    /// Begin of the config space of bus 0.
    pub ecam: u64,
    /// Whether devices see what is in the CPU's caches.
    pub is_coherent: bool,
}

/// A device's name as text.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Serialize, Deserialize)]
#[serde(try_from = "String", into = "String")]
pub struct Name(pub Bdf);

impl TryFrom<String> for Name {
    type Error = address::ParseBdfError;

    fn try_from(text: String) -> Result<Self, Self::Error> {
        text.parse().map(Self)
    }
}

impl From<Name> for String {
    fn from(name: Name) -> Self {
        name.to_string()
    }
}

impl fmt::Display for Name {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        self.0.fmt(f)
    }
}

impl From<Resource> for Region {
    fn from(resource: Resource) -> Self {
        Self {
            ports: resource.kind == RegionKind::Ports,
            start: resource.start,
            size: resource.size,
        }
    }
}

impl From<Region> for Resource {
    fn from(region: Region) -> Self {
        Self {
            kind: match region.ports {
                true => RegionKind::Ports,
                false => RegionKind::Memory,
            },
            start: region.start,
            size: region.size,
        }
    }
}

impl From<&ResetMethod> for Reset {
    fn from(method: &ResetMethod) -> Self {
        let names = |all: &[Bdf]| all.iter().copied().map(Name).collect();
        match method {
            ResetMethod::Function(word) => Self::Function(word.clone()),
            ResetMethod::Bus {
                functions,
                instead_of,
            } => Self::Bus {
                functions: names(functions),
                instead_of: instead_of.clone(),
            },
            ResetMethod::None { others } => Self::None {
                others: names(others),
            },
        }
    }
}

impl From<Reset> for ResetMethod {
    fn from(reset: Reset) -> Self {
        let bdfs = |all: Vec<Name>| all.into_iter().map(|name| name.0).collect();
        match reset {
            Reset::Function(word) => Self::Function(word),
            Reset::Bus {
                functions,
                instead_of,
            } => Self::Bus {
                functions: bdfs(functions),
                instead_of,
            },
            Reset::None { others } => Self::None {
                others: bdfs(others),
            },
        }
    }
}

impl From<&AddressMap> for Addresses {
    fn from(map: &AddressMap) -> Self {
        let ranges = |ranges: &Vec<BusRange>| {
            let plain = |range: &BusRange| (range.cpu.start.0, range.cpu.end.0, range.bus.0);
            ranges.iter().map(plain).collect()
        };
        let window = |window: &BusWindow| (window.cpu.start.0, window.cpu.end.0, window.bus.0);
        Self {
            windows: map
                .windows
                .iter()
                .map(|window| (window.start.0, window.end.0))
                .collect(),
            bus_windows: map.bus_windows.all().iter().map(window).collect(),
            dma: match &map.dma {
                DmaMap::Identity => None,
                DmaMap::Ranges(all) => Some(ranges(all)),
            },
            ecam: map.ecam.start.0,
            is_coherent: map.is_coherent,
        }
    }
}

impl From<Addresses> for AddressMap {
    /// The map, of which all ranges were [checked](mod@super::check).
    fn from(addresses: Addresses) -> Self {
        let bus_range = |(start, end, bus)| BusRange {
            cpu: Hpa(start)..Hpa(end),
            bus: BusAddr(bus),
        };
        let bus_window = |(start, end, bus)| BusWindow {
            cpu: Gpa(start)..Gpa(end),
            bus: BusAddr(bus),
        };
        let windows = addresses.windows.into_iter();
        let ecam = Gpa(addresses.ecam);
        Self {
            windows: windows.map(|(start, end)| Gpa(start)..Gpa(end)).collect(),
            bus_windows: addresses.bus_windows.into_iter().map(bus_window).collect(),
            dma: match addresses.dma {
                None => DmaMap::Identity,
                Some(all) => DmaMap::Ranges(all.into_iter().map(bus_range).collect()),
            },
            ecam: ecam..Gpa(ecam.0.saturating_add(devices::pci::ECAM_SIZE)),
            is_coherent: addresses.is_coherent,
        }
    }
}
