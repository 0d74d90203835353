// SPDX-License-Identifier: Apache-2.0 OR BSD-3-Clause

//! What `pinvisor run` reports and does if the kernel or a device misbehaves: refuses what it has
//! offered, or answers what cannot be. The package `falsify` makes it seem so; what is behind is in
//! order.

use pci_config::regs::COMMAND_BUS_MASTER;

use super::check::left_clean;
use super::refusal;
use super::rig::Rig;
use super::script;
use super::step::{STEP, Step};
use crate::error::Result;
use crate::paths::{self, GuestTarget};
use crate::runner::CaseResult;
use crate::setup::Arch;

/// A run whose guest ends with a status; but for the lie it is refused for nothing else.
const RUN: Step = Step {
    command: "pinvisor run --noiommu --kernel /testbed/status --memory 16M,spare=0 --device $TESTBED_BDF_0",
    ..STEP
};

/// A run whose guest ends well, over 8 hugepages; what fails, fails in the end.
const END: Step = Step {
    command: "pinvisor run --noiommu --kernel /testbed/off --memory 16M,spare=0 --device $TESTBED_BDF_0",
    ..STEP
};

/// Requests, as `strace -X raw` shows them: 0x3b is the type of iommufd's and VFIO's, 0xae that of KVM's
/// (include/uapi/linux/{iommufd,vfio,kvm}.h). Config space begins in a device's file at 7 << 40.
pub const FALSE_KERNEL: &[Step] = &[
    Step {
        name: "bind-for-lies",
        command: "pinvisor bind $TESTBED_BDF_0",
        ..STEP
    },
    Step {
        name: "no-address-space",
        // IOMMU_IOAS_ALLOC: ENOMEM
        lie: "ioctl 0x3b81 1 returns=-12",
        status: "2",
        error: "iommufd",
        says: &["/dev/iommu", "address space", "Cannot allocate memory"],
        ..RUN
    },
    Step {
        name: "no-pci-function",
        // VFIO_DEVICE_GET_INFO: flags
        lie: "ioctl 0x3b6b 1 u32@4=0",
        status: "3",
        error: "device-unusable",
        says: &["$BDF", "PCI function"],
        ..RUN
    },
    Step {
        name: "region-contradicts-itself",
        // VFIO_DEVICE_GET_REGION_INFO: place of the first capability, in the header
        lie: "ioctl 0x3b6c 1- u32@12=8",
        status: "3",
        error: "device-unusable",
        says: &["$BDF", "region 0", "malformed"],
        ..RUN
    },
    Step {
        name: "header-of-a-bridge",
        // The header type, which is read with the rest of config space.
        lie: "pread 0x70000000000 1 u8@14=1",
        status: "3",
        error: "function",
        says: &["$BDF", "it is a bridge"],
        ..RUN
    },
    Step {
        name: "register-unreadable",
        // Config space: EIO
        lie: "pread 0x70000000000 1 returns=-5",
        status: "3",
        error: "function",
        says: &["$BDF", "config space from 0x0 on", "Input/output error"],
        ..RUN
    },
    Step {
        name: "pinning-refused",
        // IOMMU_IOAS_MAP_FILE: ENOMEM
        lie: "ioctl 0x3b8f 1 returns=-12",
        status: "4",
        error: "pin",
        says: &["Cannot pin 16 MiB", "is out of memory"],
        ..RUN
    },
    Step {
        name: "nothing-mapped",
        // IOMMU_IOAS_NOIOMMU_GET_PA: ENOENT
        lie: "ioctl 0x3b95 1 returns=-2",
        status: "4",
        error: "translate",
        says: &["0x40000000", "nothing is mapped there"],
        ..RUN
    },
    Step {
        name: "pin-not-undone",
        // The same, and IOMMU_IOAS_UNMAP after it: the cause is reported, not what followed.
        lie: "ioctl 0x3b95 1 returns=-2; ioctl 0x3b86 1 returns=-2",
        status: "4",
        error: "translate",
        says: &["nothing is mapped there", "Memory stays pinned until"],
        ..RUN
    },
    Step {
        name: "no-such-command",
        // The same: ENOTTY
        lie: "ioctl 0x3b95 1 returns=-25",
        status: "2",
        error: "translate",
        says: &["IOMMU_IOAS_NOIOMMU_GET_PA", "Linux 7.3"],
        ..RUN
    },
    Step {
        name: "hugepage-askew",
        // The same: the address
        lie: "ioctl 0x3b95 1 u64@32=0x100001000",
        status: "4",
        error: "misaligned",
        says: &["0x100001000", "2048 KiB", "report it"],
        ..RUN
    },
    Step {
        name: "past-the-end",
        lie: "ioctl 0x3b95 1 u64@32=0xffffffffffe00000",
        status: "4",
        error: "extent",
        says: &["0xffffffffffe00000", "64 bits"],
        ..RUN
    },
    Step {
        name: "no-bytes",
        // The same: the length
        lie: "ioctl 0x3b95 1 u64@24=0",
        command: "pinvisor run --noiommu --kernel /testbed/status --memory 16M --device $TESTBED_BDF_0,dma=translate",
        status: "4",
        error: "extent",
        says: &["The host kernel returned inconsistent", "empty extent"],
        ..STEP
    },
    Step {
        name: "beyond-52-bits",
        lie: "ioctl 0x3b95 1 u64@32=0x10000000000000",
        command: "pinvisor run --noiommu --kernel /testbed/status --memory 16M --device $TESTBED_BDF_0,dma=translate",
        status: "4",
        error: "physical",
        says: &["0x10000000000000", "2^52"],
        ..STEP
    },
    Step {
        name: "interrupts-refused",
        // KVM_IRQFD: EINVAL
        lie: "ioctl 0x4020ae76 1 returns=-22",
        status: "2",
        error: "irq",
        says: &["KVM", "GSI 4", "Invalid argument"],
        ..RUN
    },
    Step {
        name: "registers-refused",
        // KVM_SET_SREGS: EINVAL
        lie: "ioctl 0x4138ae84 1 returns=-22",
        status: "2",
        error: "entry",
        says: &["KVM", "special registers", "Invalid argument"],
        ..RUN
    },
    Step {
        name: "interrupted",
        // KVM_CREATE_VM: EINTR
        lie: "ioctl 0xae01 1 returns=-4",
        ..END
    },
    Step {
        name: "vcpu-fails",
        // KVM_RUN: EFAULT
        lie: "ioctl 0xae80 1- returns=-14",
        status: "3",
        error: "access-failed",
        says: &["could not complete a memory access"],
        ..RUN
    },
    Step {
        name: "worker-fails",
        // KVM_RUN: EAGAIN
        lie: "ioctl 0xae80 1- returns=-11",
        status: "2",
        error: "no-worker",
        says: &["worker thread", "pids.max", "TasksMax="],
        ..RUN
    },
    Step {
        name: "stays-bus-master",
        // COMMAND
        lie: "pread 0x70000000004 1- u16@0=0x107",
        status: "3",
        error: "device-unusable",
        says: &["$BDF", "bus mastering cannot be disabled"],
        ..END
    },
    Step {
        name: "stays-bus-master-for-all",
        // The same, and through sysfs, where its registers begin at 0: there is no evidence then, and another process
        // keeps the memory.
        lie: "pread 0x70000000004 1- u16@0=0x107; pread 4 1- u16@0=0x107",
        status: "3",
        error: "memory-kept",
        says: &[
            "$BDF could not be stopped from doing DMA",
            "holds 16 MiB",
            "bus mastering cannot be disabled",
            "pinvisor release $BDF",
        ],
        ..END
    },
    Step {
        name: "kept-is-listed",
        command: "pinvisor list",
        says: &["keeps 16 MiB for $BDF", "pinvisor release $BDF"],
        ..STEP
    },
    Step {
        name: "kept-is-checked",
        command: "pinvisor check",
        shows: &["WARN kept-memory"],
        says: &["keeps 16 MiB for $BDF", "pinvisor release $BDF"],
        ..STEP
    },
    Step {
        name: "kept-is-told-to-who-binds",
        command: "pinvisor bind $TESTBED_BDF_0",
        says: &["keeps 16 MiB for $BDF", "pinvisor release $BDF"],
        ..STEP
    },
    Step {
        name: "kept-is-told-to-who-runs",
        says: &["keeps 16 MiB for $BDF", "pinvisor release $BDF"],
        ..END
    },
    Step {
        name: "kept-stays-without-evidence",
        // Not even by command, if the device will not be quiet.
        lie: "pread 4 1- u16@0=0x107",
        command: "pinvisor release $TESTBED_BDF_0",
        status: "3",
        error: "device-unusable",
        says: &["$BDF", "bus mastering cannot be disabled"],
        ..STEP
    },
    Step {
        name: "kept-is-released",
        command: "pinvisor release $TESTBED_BDF_0",
        says: &["$BDF: reset (flr); 16 MiB are released"],
        ..STEP
    },
    Step {
        name: "kept-no-more",
        command: "pinvisor release $TESTBED_BDF_0",
        status: "3",
        error: "no-keeper",
        says: &["$BDF", "pinvisor list"],
        ..STEP
    },
    Step {
        name: "reset-fails",
        // VFIO_DEVICE_RESET: EIO
        lie: "ioctl 0x3b6f 1- returns=-5",
        status: "3",
        error: "device",
        says: &["$BDF", "reset it"],
        ..END
    },
    Step {
        name: "bus-reset-without-waiting",
        // VFIO_DEVICE_PCI_HOT_RESET: ENOTTY, as where the state of the link cannot be read. The device answers.
        before: "pinvisor bind $TESTBED_BDF_1\n",
        lie: "ioctl 0x3b71 1- returns=-25",
        command: "pinvisor -v run --noiommu --kernel /testbed/off --memory 16M,spare=0 --device $TESTBED_BDF_1",
        says: &["reset by bus"],
        ..STEP
    },
    Step {
        name: "unpinning-fails",
        // IOMMU_IOAS_UNMAP: ENOENT
        lie: "ioctl 0x3b86 1- returns=-2",
        status: "2",
        error: "iommufd",
        says: &["/dev/iommu", "unmap guest memory"],
        ..END
    },
    Step {
        name: "intx-not-unmasked",
        // VFIO_DEVICE_SET_IRQS: four that try MSI-X and INTx, two for notices of the device, then
        // INTx and what unmasks it: EINVAL. The guest's driver requests MSI-X, which VFIO refuses
        // as long as INTx is on.
        lie: "ioctl 0x3b6e 8 returns=-22",
        command: "pinvisor run --noiommu --kernel /testbed/dma-stress --memory 16M,spare=0 --device $TESTBED_BDF_0 --cmdline 'engines=nvme destroy=yes irq=msix transfers=1 bytes=4096'",
        says: &["$BDF", "no INTx interrupts", "Invalid argument"],
        ..STEP
    },
    Step {
        name: "truth",
        ..END
    },
];

/// Takes the steps in one boot. After each the device is no bus master, and not in use.
pub fn broken_promises() -> Result<CaseResult> {
    let rig = Rig::new(9, "")?;
    let guest = paths::guest_program("dma-stress", GuestTarget::BareMetal(Arch::X86_64))?;
    let machine = refusal::machine(&rig)?
        .device("edu")
        .file("dma-stress", guest);
    let steps: Vec<_> = FALSE_KERNEL.iter().collect();
    let command = "od -An -tu2 -j4 -N2 /sys/bus/pci/devices/$TESTBED_BDF_0/config";
    let (mut findings, outcome) = refusal::take(&machine, &steps, |step| {
        format!("say {}_command $({command})\n", step.name)
    })?;
    let facts = script::facts(&outcome.output);
    for step in steps {
        let name = step.name;
        let found = facts.get(format!("{name}_command").as_str());
        let value = found.and_then(|value| value.parse::<u16>().ok());
        findings.expect(
            value.is_some_and(|value| value & COMMAND_BUS_MASTER == 0),
            format!("{name}: COMMAND afterwards is {found:?}"),
        );
    }
    left_clean(&mut findings, &outcome, &facts);
    Ok(findings.into_result(&outcome))
}
