// SPDX-License-Identifier: Apache-2.0 OR BSD-3-Clause

//! The one host bridge of a guest, made of those that its devices are behind on the host.

use address::Bdf;
use host::{BusRange, DmaMap, HostBridge, ResolvedDma};

use crate::arch::host_bridges::HostBridges;

/// A device of the host's.
#[derive(Clone, Debug)]
pub struct Behind {
    /// Its name.
    pub bdf: Bdf,
    /// How its DMA reaches guest memory.
    pub mode: ResolvedDma,
    /// What it is behind.
    pub bridge: HostBridge,
}

/// Why a guest cannot have the bridges of its devices.
#[derive(Clone, Debug, PartialEq, Eq, thiserror::Error)]
pub enum BridgesError {
    /// A guest has one bus, on which an address is one thing.
    #[error(
        "PCI devices {first} and {second} are behind host bridges that give addresses on the bus different meanings, \
         and a guest has one bus"
    )]
    Different {
        /// A device.
        first: Bdf,
        /// One behind another bridge.
        second: Bdf,
    },
    /// What the guest's drivers or the monitor give the device are not the addresses on its bus.
    #[error(
        "PCI device {bdf}: its host bridge adds an offset to addresses, or does not reach all memory, which dma={} does \
         not take into account",
        mode.name()
    )]
    Moved {
        /// The device.
        bdf: Bdf,
        /// Its mode.
        mode: ResolvedDma,
    },
    /// The monitor would write memory for the device that the device does not see.
    #[error(
        "PCI device {bdf}: its DMA bypasses the CPU's caches, so that it would not see what the monitor writes for it \
         with dma={}",
        mode.name()
    )]
    NotCoherent {
        /// The device.
        bdf: Bdf,
        /// Its mode.
        mode: ResolvedDma,
    },
}

impl BridgesError {
    /// What the user can do about it.
    #[must_use]
    pub fn hint(&self) -> String {
        match self {
            Self::Different { second, .. } => {
                format!("pass {second} to a guest of its own")
            }
            Self::Moved { bdf, .. } | Self::NotCoherent { bdf, .. } => {
                format!("use --device {bdf},dma=identity, if the guest is to be trusted like root")
            }
        }
    }
}

/// The bridge of a guest with all `devices`.
///
/// # Errors
/// [`BridgesError`]
pub fn join(devices: Vec<Behind>) -> Result<HostBridges, BridgesError> {
    let mut all = HostBridges {
        is_coherent: true,
        ..HostBridges::default()
    };
    let mut first: Option<(Bdf, DmaMap)> = None;
    for device in devices {
        check_mode(&device)?;
        let Behind { bdf, bridge, .. } = device;
        let (first, dma) = first.get_or_insert_with(|| (bdf, bridge.dma.clone()));
        let other = BridgesError::Different {
            first: *first,
            second: bdf,
        };
        if *dma != bridge.dma {
            return Err(other);
        }
        all.is_coherent &= bridge.is_coherent;
        // Devices behind one bridge have the same windows.
        for window in bridge.windows {
            if all.windows.iter().any(|found| collide(found, &window)) {
                return Err(other);
            }
            if !all.windows.contains(&window) {
                all.windows.push(window);
            }
        }
    }
    all.dma = first.map(|(_, dma)| dma).unwrap_or_default();
    Ok(all)
}

/// Whether an address on the bus would be two of the CPU's.
fn collide(a: &BusRange, b: &BusRange) -> bool {
    let (on_bus, other) = (a.on_bus(), b.on_bus());
    let overlap = on_bus.start < other.end && other.start < on_bus.end;
    overlap && a.offset() != b.offset()
}

/// Whether the device's mode works behind its bridge. Only in the identity layout does the guest give a device addresses
/// by the tables of the bridge and write all that the device reads.
fn check_mode(device: &Behind) -> Result<(), BridgesError> {
    let Behind { bdf, mode, bridge } = device;
    let (bdf, mode) = (*bdf, *mode);
    let moves_bars = bridge.windows.iter().any(|window| window.offset() != 0);
    match mode {
        ResolvedDma::Identity => Ok(()),
        _ if moves_bars || bridge.dma != DmaMap::Identity => Err(BridgesError::Moved { bdf, mode }),
        ResolvedDma::Translate | ResolvedDma::Mediate if !bridge.is_coherent => {
            Err(BridgesError::NotCoherent { bdf, mode })
        }
        ResolvedDma::Iommu | ResolvedDma::Translate | ResolvedDma::Mediate => Ok(()),
    }
}

#[cfg(test)]
mod tests {
    use address::{BusAddr, Hpa};

    use super::*;

    const GIB: u64 = 1 << 30;
    const ALL: [ResolvedDma; 4] = [
        ResolvedDma::Iommu,
        ResolvedDma::Identity,
        ResolvedDma::Translate,
        ResolvedDma::Mediate,
    ];

    fn range(cpu: u64, len: u64, bus: u64) -> BusRange {
        BusRange {
            cpu: Hpa(cpu)..Hpa(cpu + len),
            bus: BusAddr(bus),
        }
    }

    fn bdf(number: u8) -> Bdf {
        Bdf::new(0, number, 0, 0).unwrap()
    }

    /// Nothing is moved.
    fn plain(is_coherent: bool) -> HostBridge {
        HostBridge {
            windows: vec![range(GIB / 4, GIB / 2, GIB / 4)],
            dma: DmaMap::Identity,
            is_coherent,
        }
    }

    /// As of Raspberry Pi 5: BARs from `cpu` on are at 0 on the bus, memory is at `memory`.
    fn moved(cpu: u64, memory: u64) -> HostBridge {
        HostBridge {
            windows: vec![range(cpu, GIB, 0)],
            dma: DmaMap::Ranges(vec![range(0, 64 * GIB, memory)]),
            is_coherent: false,
        }
    }

    fn joined(bridges: &[HostBridge], mode: ResolvedDma) -> Result<HostBridges, BridgesError> {
        let behind = |(number, bridge): (u8, &HostBridge)| Behind {
            bdf: bdf(number),
            mode,
            bridge: bridge.clone(),
        };
        join((1..).zip(bridges).map(behind).collect())
    }

    #[test]
    fn devices_behind_one_bridge_have_its_windows_once() {
        let bridge = moved(108 * GIB, 64 * GIB);
        let all = joined(&[bridge.clone(), bridge.clone()], ResolvedDma::Identity).unwrap();
        assert_eq!(all.windows, bridge.windows);
        assert_eq!(all.dma, bridge.dma);
        assert!(!all.is_coherent);
        assert!(
            joined(&[plain(true)], ResolvedDma::Mediate)
                .unwrap()
                .is_coherent
        );
        let both = joined(&[plain(true), plain(false)], ResolvedDma::Identity).unwrap();
        assert!(!both.is_coherent);
    }

    #[test]
    fn bridges_with_different_offsets_are_refused() {
        let (first, second) = (bdf(1), bdf(2));
        let different = Err(BridgesError::Different { first, second });
        let one = moved(108 * GIB, 64 * GIB);
        for other in [
            moved(108 * GIB, 128 * GIB),
            moved(92 * GIB, 64 * GIB),
            plain(false),
        ] {
            assert_eq!(
                joined(&[one.clone(), other], ResolvedDma::Identity),
                different
            );
        }
        // Windows that are apart on the bus, too.
        let mut apart = one.clone();
        apart.windows = vec![range(96 * GIB, GIB, 4 * GIB)];
        let all = joined(&[one, apart], ResolvedDma::Identity).unwrap();
        assert_eq!(all.windows.len(), 2);
    }

    #[test]
    fn only_drivers_of_an_identity_layout_know_the_offset() {
        let only_bars = HostBridge {
            windows: vec![range(24 * GIB, GIB, 3 * GIB)],
            ..plain(true)
        };
        let few = HostBridge {
            dma: DmaMap::Ranges(vec![range(0, GIB, 0)]),
            ..plain(true)
        };
        for bridge in [moved(108 * GIB, 64 * GIB), only_bars, few] {
            for mode in ALL {
                let expected = match mode {
                    ResolvedDma::Identity => None,
                    _ => Some(BridgesError::Moved { bdf: bdf(1), mode }),
                };
                let bridge = std::slice::from_ref(&bridge);
                assert_eq!(joined(bridge, mode).err(), expected);
            }
        }
    }

    #[test]
    fn the_monitor_writes_nothing_for_devices_that_bypass_the_caches() {
        for mode in ALL {
            let writes = matches!(mode, ResolvedDma::Translate | ResolvedDma::Mediate);
            let expected = writes.then_some(BridgesError::NotCoherent { bdf: bdf(1), mode });
            assert_eq!(joined(&[plain(false)], mode).err(), expected);
            assert_eq!(joined(&[plain(true)], mode).err(), None);
        }
    }
}
