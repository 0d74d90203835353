// SPDX-License-Identifier: Apache-2.0 OR BSD-3-Clause

//! What the compatibility table is about: devices, and what a guest does with them.

/// One row of the table.
#[derive(Debug, Clone, Copy)]
pub struct Subject {
    /// What the row is called.
    pub name: &'static str,
    /// Functions that the guest gets, in this order.
    pub functions: &'static [Function],
    /// What is done with them.
    pub plan: Plan,
    /// Whether only a PC's stock kernel has the driver.
    pub pc_only: bool,
    /// Whether it is in every run. The others are in the long ones: other cases have the device, or others of its kind
    /// are in the batch.
    pub often: bool,
}

/// How often, and with which outcome, a guest is started.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Plan {
    /// Twice, one after the other; the second finds what the first left.
    Twice,
    /// First with one of two functions that share a slot, which is refused, then twice with both.
    AloneThenTwice,
    /// Once, with a device that cannot address the guest's memory.
    OutOfReach,
}

/// A start of `pinvisor`.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Step {
    /// With the first of two functions that share a slot.
    Alone,
    /// With all functions, for the first time.
    First,
    /// Once more, after the reset that ended the first.
    Again,
    /// With a device that cannot address the guest's memory.
    OutOfReach,
}

impl Plan {
    /// The starts, in order.
    pub fn steps(self) -> &'static [Step] {
        match self {
            Self::Twice => &[Step::First, Step::Again],
            Self::AloneThenTwice => &[Step::Alone, Step::First, Step::Again],
            Self::OutOfReach => &[Step::OutOfReach],
        }
    }
}

/// A PCI function. In arguments for QEMU, `@` is replaced by what makes identifiers unique.
#[derive(Debug, Clone, Copy)]
pub struct Function {
    /// The device, as QEMU's `-device` takes it.
    pub model: &'static str,
    /// What is plugged into it, as another `-device`.
    pub medium: Option<&'static str>,
    /// What the guest does with it.
    pub work: Work,
    /// Modules of the stock kernel that the guest loads for it.
    pub modules: &'static [&'static str],
    /// Name of the driver that is to claim it.
    pub driver: &'static str,
    /// The interrupts that the driver is to use.
    pub interrupts: Interrupts,
}

/// What a guest does with a function.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Work {
    /// Hashes the disk `disk@`, changes half of it, and hashes it again.
    Disk,
    /// Gets an address on the network `net@`, fetches bytes from a server, and sends them back.
    Network,
}

/// Kinds of interrupts.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Interrupts {
    /// The function's pin.
    Intx,
    /// One message.
    Msi,
    /// Messages from a table.
    Msix,
}

impl Interrupts {
    /// The word in `msi_irqs` of Linux's sysfs, and `intx`.
    pub fn sysfs_word(self) -> &'static str {
        match self {
            Self::Intx => "intx",
            Self::Msi => "msi",
            Self::Msix => "msix",
        }
    }

    /// The usual spelling.
    pub fn name(self) -> &'static str {
        match self {
            Self::Intx => "INTx",
            Self::Msi => "MSI",
            Self::Msix => "MSI-X",
        }
    }
}

impl Subject {
    /// How many of its functions do this work.
    pub fn count(&self, work: Work) -> usize {
        let functions = self.functions.iter();
        functions.filter(|function| function.work == work).count()
    }
}

impl Function {
    /// A network interface.
    pub const fn network(
        model: &'static str,
        modules: &'static [&'static str],
        driver: &'static str,
        interrupts: Interrupts,
    ) -> Self {
        Self {
            model,
            medium: None,
            work: Work::Network,
            modules,
            driver,
            interrupts,
        }
    }

    /// A disk, or a controller that is to have one.
    pub const fn disk(
        model: &'static str,
        modules: &'static [&'static str],
        driver: &'static str,
        interrupts: Interrupts,
    ) -> Self {
        Self {
            model,
            medium: None,
            work: Work::Disk,
            modules,
            driver,
            interrupts,
        }
    }

    /// A controller with a disk as its medium.
    pub const fn with_medium(mut self, medium: &'static str) -> Self {
        self.medium = Some(medium);
        self
    }
}

use Interrupts::{Intx, Msi, Msix};

const NVME: Function = Function::disk("nvme,drive=disk@,serial=@", &["nvme"], "nvme", Msix);
const XHCI_MODULES: &[&str] = &["xhci-pci", "usb-storage", "uas", "sd_mod"];
const USB_DISK: &str = "usb-storage,bus=bus@.0,drive=disk@";
const E1000: Function = Function::network("e1000,netdev=net@", &["e1000"], "e1000", Intx);
const E1000E: Function = Function::network("e1000e,netdev=net@", &["e1000e"], "e1000e", Msix);

const fn one(name: &'static str, functions: &'static [Function]) -> Subject {
    Subject {
        name,
        functions,
        plan: Plan::Twice,
        pc_only: false,
        often: true,
    }
}

const fn seldom(name: &'static str, functions: &'static [Function]) -> Subject {
    Subject {
        often: false,
        ..one(name, functions)
    }
}

const XHCI: Subject = one(
    "qemu-xhci with usb-storage",
    &[Function::disk("qemu-xhci,id=bus@", XHCI_MODULES, "xhci_hcd", Msix).with_medium(USB_DISK)],
);
const IGB: Subject = one(
    "igb",
    &[Function::network("igb,netdev=net@", &["igb"], "igb", Msix)],
);

/// Through VFIO groups.
pub const GROUP: &[Subject] = &[
    seldom("nvme", &[NVME]),
    one("e1000e", &[E1000E]),
    Subject {
        often: false,
        ..IGB
    },
    XHCI,
];

/// Controllers with a disk.
pub const BLOCK: &[Subject] = &[
    seldom("nvme", &[NVME]),
    one(
        "virtio-blk-pci",
        &[Function::disk(
            "virtio-blk-pci,drive=disk@",
            &["virtio_pci", "virtio_blk"],
            "virtio-pci",
            Msix,
        )],
    ),
    one(
        "ich9-ahci",
        &[
            Function::disk("ich9-ahci,id=bus@", &["ahci", "sd_mod"], "ahci", Msi)
                .with_medium("ide-hd,bus=bus@.0,drive=disk@"),
        ],
    ),
    seldom(
        "megasas",
        &[Function::disk(
            "megasas,id=bus@",
            &["megaraid_sas", "sd_mod"],
            "megaraid_sas",
            Msix,
        )
        .with_medium("scsi-hd,bus=bus@.0,drive=disk@")],
    ),
    Subject {
        pc_only: true,
        ..seldom(
            "pvscsi",
            &[Function::disk(
                "pvscsi,id=bus@",
                &["vmw_pvscsi", "sd_mod"],
                "vmw_pvscsi",
                Msi,
            )
            .with_medium("scsi-hd,bus=bus@.0,drive=disk@")],
        )
    },
    one(
        "sdhci-pci",
        &[Function::disk(
            "sdhci-pci,id=bus@",
            &["sdhci-pci", "mmc_block"],
            "sdhci-pci",
            Intx,
        )
        .with_medium("sd-card,drive=disk@")],
    ),
    XHCI,
];

/// Network interfaces.
pub const NETWORK: &[Subject] = &[
    seldom("e1000", &[E1000]),
    seldom("e1000e", &[E1000E]),
    IGB,
    one(
        "rtl8139",
        &[Function::network(
            "rtl8139,netdev=net@",
            &["8139cp"],
            "8139cp",
            Intx,
        )],
    ),
    one(
        "virtio-net-pci",
        &[Function::network(
            "virtio-net-pci,netdev=net@",
            &["virtio_pci", "virtio_net"],
            "virtio-pci",
            Msix,
        )],
    ),
];

/// Several functions in one guest. The siblings come first: they share the machine's first port, `tb0`.
pub const TOGETHER: &[Subject] = &[
    Subject {
        name: "two functions of qemu-xhci in one slot",
        functions: &[
            Function::disk(
                "qemu-xhci,id=bus@,multifunction=on,addr=0.0",
                XHCI_MODULES,
                "xhci_hcd",
                Msix,
            )
            .with_medium(USB_DISK),
            Function::disk(
                "qemu-xhci,id=bus@,bus=tb0,addr=0.1",
                XHCI_MODULES,
                "xhci_hcd",
                Msix,
            )
            .with_medium(USB_DISK),
        ],
        plan: Plan::AloneThenTwice,
        pc_only: false,
        often: true,
    },
    one("two nvme and an e1000e at once", &[NVME, NVME, E1000E]),
];

/// With all of the guest's memory above 4 GiB.
pub const HIGH: &[Subject] = &[Subject {
    name: "e1000, no guest memory below 4 GiB",
    functions: &[E1000],
    plan: Plan::OutOfReach,
    pc_only: false,
    often: true,
}];

/// Behind an IOMMU.
pub const IOMMU: &[Subject] = &[
    one("nvme, behind an IOMMU", &[NVME]),
    one("e1000e, behind an IOMMU", &[E1000E]),
];
