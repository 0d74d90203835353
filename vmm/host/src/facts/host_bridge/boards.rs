// SPDX-License-Identifier: Apache-2.0 OR BSD-3-Clause

//! Boards: machines whose device is behind a host bridge as in the device tree of one (arch/arm64/boot/dts and
//! arch/arm/boot/dts in Linux; what the firmware of Raspberry Pi 4 writes into its own).

use std::os::unix::fs::symlink;

use address::Bdf;

use crate::sys_root::tests::Fake;

const TREE: &str = "sys/firmware/devicetree/base";

/// The device.
pub(crate) fn bdf() -> Bdf {
    "0000:01:00.0".parse().unwrap()
}

/// Properties, each of the node at this path.
pub(crate) type Properties = [(&'static str, &'static str, &'static [u32])];

/// A machine whose device is behind the bridge of `node`, which is in the tree if that has properties.
pub(crate) fn machine(node: &str, properties: &[(&str, &str, &[u32])]) -> Fake {
    let fake = Fake::new();
    let path = |name: &str| fake.dir.path().join(name);
    fake.directory(&format!("{TREE}/{node}"));
    for (node, property, cells) in properties {
        fake.directory(&format!("{TREE}/{node}"));
        let bytes: Vec<u8> = cells.iter().flat_map(|cell| cell.to_be_bytes()).collect();
        std::fs::write(path(&format!("{TREE}/{node}/{property}")), bytes).unwrap();
    }
    let platform = "sys/devices/platform/a.pcie";
    let function = format!("{platform}/pci0000:00/0000:00:00.0/0000:01:00.0");
    fake.directory(&function);
    symlink(
        path(&format!("{TREE}/{node}")),
        path(&format!("{platform}/of_node")),
    )
    .unwrap();
    fake.directory("sys/bus/pci/devices");
    symlink(path(&function), path("sys/bus/pci/devices/0000:01:00.0")).unwrap();
    fake
}

/// Cells of a bridge in a node whose addresses have two.
pub(crate) const CELLS: [(&str, &str, &[u32]); 4] = [
    ("", "#address-cells", &[2]),
    ("", "#size-cells", &[2]),
    ("pcie", "#address-cells", &[3]),
    ("pcie", "#size-cells", &[2]),
];

/// QEMU's machine `virt`: ports, a window of 32 bits and one of 64, nothing moved.
#[rustfmt::skip]
const VIRT: &[u32] = &[
    0x100_0000, 0, 0, 0, 0x3eff_0000, 0, 0x1_0000,
    0x200_0000, 0, 0x1000_0000, 0, 0x1000_0000, 0, 0x2eff_0000,
    0x300_0000, 0x80, 0, 0x80, 0, 0x80, 0,
];

/// The same with `more` properties.
pub(crate) fn virt(more: &Properties) -> Fake {
    machine(
        "pcie",
        &[&CELLS[..], &[("pcie", "ranges", VIRT)], more].concat(),
    )
}

/// Raspberry Pi 4, with 1 GiB for BARs as its firmware writes it, and these `dma-ranges`.
fn pi4(dma: &'static [u32]) -> Fake {
    #[rustfmt::skip]
    const SCB: &[u32] = &[
        0, 0x7c00_0000, 0, 0xfc00_0000, 0x380_0000,
        6, 0, 6, 0, 0x4000_0000,
    ];
    const RANGES: &[u32] = &[0x200_0000, 0, 0xc000_0000, 6, 0, 0, 0x4000_0000];
    machine(
        "scb/pcie",
        &[
            ("", "#address-cells", &[2]),
            ("", "#size-cells", &[1]),
            ("scb", "#address-cells", &[2]),
            ("scb", "#size-cells", &[1]),
            ("scb", "ranges", SCB),
            ("scb/pcie", "#address-cells", &[3]),
            ("scb/pcie", "#size-cells", &[2]),
            ("scb/pcie", "ranges", RANGES),
            ("scb/pcie", "dma-ranges", dma),
        ],
    )
}

/// Raspberry Pi 4 with an early chip: the bus reaches 3 GiB.
pub(crate) fn pi4_early() -> Fake {
    pi4(&[0x200_0000, 0, 0, 0, 0, 0, 0xc000_0000])
}

/// Raspberry Pi 4 with a later chip: memory begins at 16 GiB on the bus.
pub(crate) fn pi4_late() -> Fake {
    pi4(&[0x200_0000, 4, 0, 0, 0, 4, 0])
}

/// Raspberry Pi 5, external connector.
pub(crate) fn pi5() -> Fake {
    #[rustfmt::skip]
    const AXI: &[u32] = &[
        0, 0, 0, 0, 0x10, 0,
        0x10, 0, 0x10, 0, 1, 0,
        0x14, 0, 0x14, 0, 4, 0,
        0x18, 0, 0x18, 0, 4, 0,
        0x1c, 0, 0x1c, 0, 4, 0,
    ];
    #[rustfmt::skip]
    const RANGES: &[u32] = &[
        0x200_0000, 0, 0, 0x1b, 0, 0, 0xffff_fffc,
        0x4300_0000, 4, 0, 0x18, 0, 3, 0,
    ];
    // Memory, and the receiver of messages.
    #[rustfmt::skip]
    const DMA_RANGES: &[u32] = &[
        0x300_0000, 0x10, 0, 0, 0, 0x10, 0,
        0x300_0000, 0xff, 0xffff_f000, 0x10, 0x13_1000, 0, 0x1000,
    ];
    machine(
        "axi/pcie",
        &[
            ("", "#address-cells", &[2]),
            ("", "#size-cells", &[2]),
            ("axi", "#address-cells", &[2]),
            ("axi", "#size-cells", &[2]),
            ("axi", "ranges", AXI),
            ("axi", "dma-ranges", AXI),
            ("axi/pcie", "#address-cells", &[3]),
            ("axi/pcie", "#size-cells", &[2]),
            ("axi/pcie", "ranges", RANGES),
            ("axi/pcie", "dma-ranges", DMA_RANGES),
        ],
    )
}

/// RK3399: 30 MiB for BARs, nothing moved.
pub(crate) fn rk3399() -> Fake {
    #[rustfmt::skip]
    const RANGES: &[u32] = &[
        0x8300_0000, 0, 0xfa00_0000, 0, 0xfa00_0000, 0, 0x1e0_0000,
        0x8100_0000, 0, 0xfbe0_0000, 0, 0xfbe0_0000, 0, 0x10_0000,
    ];
    machine(
        "pcie",
        &[&CELLS[..], &[("pcie", "ranges", RANGES)]].concat(),
    )
}

/// i.MX8M Quad and Mini: 127 MiB for BARs; the bus above the bridge reaches 3 GiB from where memory begins.
pub(crate) fn imx8m() -> Fake {
    #[rustfmt::skip]
    const RANGES: &[u32] = &[
        0x8100_0000, 0, 0, 0x1ff8_0000, 0, 0x1_0000,
        0x8200_0000, 0, 0x1800_0000, 0x1800_0000, 0, 0x7f0_0000,
    ];
    machine(
        "soc/pcie",
        &[
            ("", "#address-cells", &[2]),
            ("", "#size-cells", &[2]),
            ("soc", "#address-cells", &[1]),
            ("soc", "#size-cells", &[1]),
            ("soc", "ranges", &[0, 0, 0, 0x3e00_0000]),
            (
                "soc",
                "dma-ranges",
                &[0x4000_0000, 0, 0x4000_0000, 0xc000_0000],
            ),
            ("soc/pcie", "#address-cells", &[3]),
            ("soc/pcie", "#size-cells", &[2]),
            ("soc/pcie", "ranges", RANGES),
        ],
    )
}
