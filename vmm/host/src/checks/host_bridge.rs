// SPDX-License-Identifier: Apache-2.0 OR BSD-3-Clause

//! Words for what a host bridge does to addresses and to the CPU's caches.

use crate::checks::units::size;
use crate::facts::bus_range::{BusRange, DmaMap};
use crate::facts::host_bridge::HostBridge;

/// Which windows for BARs the bridge has, where memory is for devices, and whether they see the CPU's caches.
pub(crate) fn text(bridge: &HostBridge) -> String {
    let windows: Vec<_> = bridge.windows.iter().map(window).collect();
    let memory = match &bridge.dma {
        DmaMap::Identity => "all memory is at the same address on the bus".to_owned(),
        DmaMap::Ranges(ranges) => {
            let ranges: Vec<_> = ranges.iter().map(memory).collect();
            format!("its devices reach memory at {} only", ranges.join(", "))
        }
    };
    let caches = match bridge.is_coherent {
        true => "DMA sees the CPU's caches",
        false => "DMA bypasses the CPU's caches, as the guest's device tree states",
    };
    format!(
        "host bridge: windows {}; {memory}; {caches}",
        windows.join(", ")
    )
}

fn window(window: &BusRange) -> String {
    let len = size(window.cpu.end - window.cpu.start);
    format!("{len} at {}{}", window.cpu.start, on_bus(window))
}

fn memory(range: &BusRange) -> String {
    format!(
        "{:#x}-{:#x}{}",
        range.cpu.start,
        range.cpu.end,
        on_bus(range)
    )
}

fn on_bus(range: &BusRange) -> String {
    match range.offset() {
        0 => String::new(),
        _ => format!(" ({} on the bus)", range.bus),
    }
}

#[cfg(test)]
mod tests {
    use address::Hpa;

    use super::*;
    use crate::facts::host_bridge::{boards, host_bridge};
    use crate::sys_root::tests::Fake;

    fn of(fake: &Fake) -> String {
        const GIB: u64 = 1 << 30;
        let ram = [Hpa(0)..Hpa(4 * GIB)];
        text(&host_bridge(&fake.root, boards::bdf(), &ram).unwrap())
    }

    #[test]
    fn boards_are_told_apart() {
        let cached = "DMA bypasses the CPU's caches, as the guest's device tree states";
        for (fake, expected) in [
            (
                boards::pi4_early(),
                "windows 1 GiB at 0x600000000 (0xc0000000 on the bus); its devices reach memory at \
                 0x0-0xc0000000 only",
            ),
            (
                boards::pi4_late(),
                "windows 1 GiB at 0x600000000 (0xc0000000 on the bus); its devices reach memory at \
                 0x0-0x400000000 (0x400000000 on the bus) only",
            ),
            (
                boards::imx8m(),
                "windows 127 MiB at 0x18000000; its devices reach memory at 0x40000000-0x100000000 only",
            ),
            (
                boards::rk3399(),
                "windows 30 MiB at 0xfa000000; all memory is at the same address on the bus",
            ),
        ] {
            assert_eq!(of(&fake), format!("host bridge: {expected}; {cached}"));
        }
        let pi5 = of(&boards::pi5());
        assert!(
            pi5.contains("12 GiB at 0x1800000000 (0x400000000 on the bus)"),
            "{pi5}"
        );
        assert!(
            pi5.contains("memory at 0x0-0x1000000000 (0x1000000000 on the bus) only"),
            "{pi5}"
        );
        let virt = of(&boards::virt(&[("pcie", "dma-coherent", &[])]));
        assert!(virt.ends_with("DMA sees the CPU's caches"), "{virt}");
    }
}
