//! What `pinvisor run` refuses, with which name, words and status.

use std::path::Path;

use super::addresses::ADDRESSES;
use super::check::Findings;
use super::check_host::WITHOUT_NOIOMMU;
use super::rig::Rig;
use super::script;
use super::step::{self, STEP, Step};
use crate::error::{AtPath, Result};
use crate::machine::{Machine, Outcome, Status};
use crate::runner::CaseResult;
use crate::setup::{self, Flavour};

/// Refusals before a device is bound.
pub const BY_FILE: &[Step] = &[
    Step {
        name: "option-missing",
        before: "echo > /tmp/empty.toml\n",
        command: "pinvisor run --config /tmp/empty.toml",
        status: "1",
        error: "option-missing",
        says: &["missing"],
        ..STEP
    },
    Step {
        name: "config-missing",
        command: "pinvisor run --config /nowhere.toml",
        status: "1",
        error: "config-file",
        says: &["/nowhere.toml"],
        ..STEP
    },
    Step {
        name: "pidfile",
        command: "pinvisor run $ready --device $TESTBED_BDF_0 --pidfile /nowhere/pid",
        status: "1",
        error: "pidfile",
        says: &["/nowhere/pid"],
        ..STEP
    },
    Step {
        name: "events",
        command: "pinvisor run $ready --device $TESTBED_BDF_0 --event-file /nowhere/events",
        status: "1",
        error: "events",
        says: &["/nowhere/events"],
        ..STEP
    },
    Step {
        name: "kernel-missing",
        command: "pinvisor run --noiommu --memory 64M --device $TESTBED_BDF_0 --kernel /nowhere",
        status: "1",
        error: "kernel",
        says: &["/nowhere"],
        ..STEP
    },
    Step {
        name: "kernel-truncated",
        before: "head -c 3000000 /testbed/kernel > /tmp/short\n",
        command: "pinvisor run --noiommu --memory 64M --device $TESTBED_BDF_0 --kernel /tmp/short",
        status: "1",
        error: "kernel",
        says: &["/tmp/short", "truncated"],
        ..STEP
    },
    Step {
        name: "kernel-not-bzimage",
        before: "head -c 3000000 /dev/urandom > /tmp/noise\n",
        command: "pinvisor run --noiommu --memory 64M --device $TESTBED_BDF_0 --kernel /tmp/noise",
        status: "1",
        error: "kernel",
        says: &["/tmp/noise", "bzImage"],
        ..STEP
    },
    Step {
        name: "initramfs-missing",
        command: "pinvisor run $ready --device $TESTBED_BDF_0 --initramfs /nowhere",
        status: "1",
        error: "file",
        says: &["/nowhere"],
        ..STEP
    },
    Step {
        name: "initramfs-pipe",
        before: "mkfifo /tmp/pipe\n",
        command: "pinvisor run $ready --device $TESTBED_BDF_0 --initramfs /tmp/pipe",
        status: "1",
        error: "file",
        says: &["/tmp/pipe", "not a regular file"],
        ..STEP
    },
    Step {
        name: "device-twice",
        command: "pinvisor run $ready --device $TESTBED_BDF_0 --device $TESTBED_BDF_0",
        status: "1",
        error: "device-twice",
        says: &["$BDF", "twice"],
        ..STEP
    },
    Step {
        name: "too-many-devices",
        before: "many=; for bus in $(seq 10 60); do many=\"$many --device $bus:00.0\"; done\n",
        command: "pinvisor run $ready $many",
        status: "1",
        error: "too-many-devices",
        says: &["51 devices"],
        ..STEP
    },
    Step {
        name: "profile",
        before: "echo 'version = 7' > /tmp/bad.profile\n",
        command: "pinvisor run $ready --device $TESTBED_BDF_0,dma=mediate,profile=/tmp/bad.profile",
        status: "1",
        error: "profile",
        says: &["/tmp/bad.profile"],
        ..STEP
    },
    Step {
        name: "profile-of-several-stores",
        before: "sed -e '/^offset = 0x98/a store = 4' -e '/^partial/d' /testbed/edu.toml > /tmp/several.profile\n",
        command: "pinvisor run $ready --device $TESTBED_BDF_0,dma=mediate,profile=/tmp/several.profile",
        status: "1",
        error: "profile",
        says: &[
            "/tmp/several.profile",
            "\"command\" is written in 2 stores",
            "start mask",
        ],
        ..STEP
    },
    Step {
        name: "no-device",
        command: "pinvisor run $ready --device 7f:00.0",
        status: "3",
        error: "no-device",
        says: &["0000:7f:00.0", "pinvisor list"],
        ..STEP
    },
    Step {
        name: "not-bound",
        command: "pinvisor run $ready --device $TESTBED_BDF_0",
        status: "3",
        error: "not-bound",
        says: &["$BDF", "vfio-pci", "pinvisor bind $BDF"],
        ..STEP
    },
    Step {
        name: "no-iommufd",
        before: "mv /dev/iommu /dev/iommu.away\n",
        command: "pinvisor run $ready --device $TESTBED_BDF_0",
        after: "mv /dev/iommu.away /dev/iommu\n",
        status: "2",
        error: "open-iommufd",
        says: &["/dev/iommu"],
        ..STEP
    },
    Step {
        name: "no-software-engine",
        command: "pinvisor stress --kernel /testbed/status --memory 64M --noiommu --device $TESTBED_BDF_0 --break bit",
        status: "1",
        error: "no-software-engine",
        says: &["--software"],
        ..STEP
    },
    Step {
        name: "too-much-synthetic-memory",
        command: "pinvisor stress --software --kernel /testbed/status --memory 30G",
        status: "4",
        error: "software",
        says: &["synthetic", "28 GiB"],
        ..STEP
    },
    Step {
        name: "standard-output-full",
        command: "sh -c 'pinvisor list 2>&1 > /dev/full'",
        status: "2",
        error: "process",
        says: &["standard output", "No space left"],
        ..STEP
    },
];

/// Refusals of devices that are bound.
pub const BY_STATE: &[Step] = &[
    Step {
        name: "bind-all",
        command: "pinvisor bind $TESTBED_BDF_0 $TESTBED_BDF_1 00:05.0",
        says: &["$BDF: bound to vfio-pci, taken from nvme"],
        ..STEP
    },
    Step {
        name: "not-accepted",
        command: "pinvisor run --device $TESTBED_BDF_0 --kernel /testbed/status --memory 64M",
        status: "1",
        error: "noiommu-not-accepted",
        says: &["$BDF", "--noiommu", "all memory"],
        ..STEP
    },
    Step {
        name: "memory-encrypted",
        before: "sed 's/^flags.*/& sme/' /proc/cpuinfo | fake /proc/cpuinfo\n",
        command: "pinvisor run $ready --device $TESTBED_BDF_0",
        after: "umount /proc/cpuinfo\n",
        status: "2",
        error: "memory-encrypted",
        says: &["SME", "$BDF", "mem_encrypt=off"],
        ..STEP
    },
    Step {
        name: "not-behind-iommu",
        command: "pinvisor run $ready --device $TESTBED_BDF_0,dma=iommu",
        status: "3",
        error: "not-behind-iommu",
        says: &["$BDF"],
        ..STEP
    },
    Step {
        name: "behind-iommu",
        before: "cover /sys/bus/pci/devices/$TESTBED_BDF_0/vfio-dev /tmp/behind\n\
                 mkdir -p /tmp/behind/vfio0; touch /dev/vfio/devices/vfio0\n",
        command: "pinvisor run $ready --device $TESTBED_BDF_0,dma=identity",
        after: "umount /sys/bus/pci/devices/$TESTBED_BDF_0/vfio-dev; rm /dev/vfio/devices/vfio0\n",
        status: "3",
        error: "behind-iommu",
        says: &["$BDF", "leave dma= out"],
        ..STEP
    },
    Step {
        name: "no-cdev",
        before: "cover /dev/vfio/devices /tmp/no-nodes\n",
        command: "pinvisor run $ready --device $TESTBED_BDF_0",
        after: "umount /dev/vfio/devices\n",
        status: "2",
        error: "no-cdev",
        says: &["$BDF", "CONFIG_VFIO_DEVICE_CDEV"],
        ..STEP
    },
    Step {
        name: "no-rawio",
        command: "setpriv --bounding-set=-sys_rawio --inh-caps=-sys_rawio pinvisor run $ready --device $TESTBED_BDF_0",
        status: "3",
        error: "open-cdev",
        says: &["$BDF", "CAP_SYS_RAWIO"],
        ..STEP
    },
    Step {
        name: "group-open",
        before: "group=$(basename $(readlink /sys/bus/pci/devices/$TESTBED_BDF_0/iommu_group))\n\
                 exec 7<> /dev/vfio/noiommu-$group\n",
        command: "pinvisor run $ready --device $TESTBED_BDF_0",
        after: "exec 7<&-\n",
        status: "3",
        error: "device",
        says: &["$BDF", "another process"],
        ..STEP
    },
    Step {
        name: "mixed-modes",
        command: "pinvisor run $ready --device $TESTBED_BDF_0,dma=translate --device $TESTBED_BDF_1",
        status: "1",
        error: "mixed-modes",
        says: &["$BDF", "two guests"],
        ..STEP
    },
    Step {
        name: "no-identity",
        command: "pinvisor stress --break identity --kernel /testbed/status --memory 64M --noiommu --device $TESTBED_BDF_0,dma=translate",
        status: "1",
        error: "no-identity",
        says: &["physical addresses"],
        ..STEP
    },
    Step {
        name: "no-profile",
        command: "pinvisor run $ready --device $TESTBED_BDF_0,dma=mediate",
        status: "3",
        error: "no-profile",
        says: &["$BDF", "1b36:0010", "profile=FILE"],
        ..STEP
    },
    Step {
        name: "profile-of-another",
        command: "pinvisor run $ready --device $TESTBED_BDF_0,dma=mediate,profile=/testbed/edu.toml",
        status: "3",
        error: "mediate",
        says: &["$BDF", "edu"],
        ..STEP
    },
    Step {
        name: "no-reset",
        command: "pinvisor run $ready --device 00:05.0",
        status: "3",
        error: "no-reset",
        says: &["0000:00:05.0", "reset=none"],
        ..STEP
    },
    Step {
        name: "no-reset-accepted",
        // Warned of at the start and at the end.
        command: "pinvisor run $ready --device 00:05.0,reset=none",
        status: "6",
        error: "guest-status",
        says: &[
            "0000:00:05.0: cannot be reset: it may be doing",
            "0000:00:05.0: was not reset: it keeps what this guest told it",
        ],
        ..STEP
    },
    Step {
        name: "no-kvm",
        before: "mv /dev/kvm /dev/kvm.away\n",
        command: "pinvisor run $ready --device $TESTBED_BDF_0",
        after: "mv /dev/kvm.away /dev/kvm\n",
        status: "2",
        error: "vm",
        says: &["firmware"],
        ..STEP
    },
    Step {
        name: "addresses-hidden",
        before: "sed 's/[0-9a-f]*-[0-9a-f]* :/00000000-00000000 :/' /proc/iomem | fake /proc/iomem\n",
        command: "pinvisor run $ready --device $TESTBED_BDF_0",
        after: "umount /proc/iomem\n",
        status: "2",
        error: "addresses-hidden",
        says: &["/proc/iomem", "run as root"],
        ..STEP
    },
    Step {
        name: "no-ecam",
        before: "echo '00000000-ffffffff : PCI Bus 0000:00' | fake /proc/iomem\n",
        command: "pinvisor run $ready --device $TESTBED_BDF_0",
        after: "umount /proc/iomem\n",
        status: "2",
        error: "no-ecam",
        says: &["config space"],
        ..STEP
    },
    Step {
        name: "garbled",
        before: "echo nonsense | fake /proc/iomem\n",
        command: "pinvisor run $ready --device $TESTBED_BDF_0",
        after: "umount /proc/iomem\n",
        status: "2",
        error: "parse",
        says: &["/proc/iomem", "nonsense"],
        ..STEP
    },
    Step {
        name: "unreadable",
        before: "mkdir -p /tmp/pools/nr_hugepages; pools=/sys/kernel/mm/hugepages/hugepages-2048kB\n\
                 mount --bind /tmp/pools $pools\n",
        command: "pinvisor run $ready --device $TESTBED_BDF_0",
        after: "umount $pools\n",
        status: "2",
        error: "read",
        says: &["/sys/kernel/mm/hugepages/hugepages-2048kB/nr_hugepages"],
        ..STEP
    },
    Step {
        name: "too-few-hugepages",
        command: "pinvisor run --noiommu --kernel /testbed/status --memory 1G --device $TESTBED_BDF_0",
        status: "4",
        error: "too-few-hugepages",
        says: &[
            "512",
            "150",
            "/sys/kernel/mm/hugepages/hugepages-2048kB/nr_hugepages",
        ],
        ..STEP
    },
    Step {
        name: "locked-memory",
        command: "setpriv --bounding-set=-ipc_lock --inh-caps=-ipc_lock prlimit --memlock=1048576 pinvisor run $ready --device $TESTBED_BDF_0",
        status: "4",
        error: "pin",
        says: &["Cannot pin", "ulimit -l "],
        ..STEP
    },
    Step {
        name: "address-space",
        command: "prlimit --as=200000000 pinvisor run --noiommu --kernel /testbed/status --memory 256M --device $TESTBED_BDF_0",
        status: "4",
        error: "map",
        says: &["Cannot allocate memory"],
        ..STEP
    },
    Step {
        name: "overlap",
        // A bridge window where the hugepages of a machine of 6 GiB are.
        before: "echo '80000000-afffffff : PCI Bus 0000:00\nb0000000-bfffffff : PCI ECAM 0000 [bus 00-ff]\n100000000-1ffffffff : PCI Bus 0000:00' | fake /proc/iomem\n",
        command: "pinvisor run $ready --device $TESTBED_BDF_0",
        after: "umount /proc/iomem\n",
        status: "4",
        error: "plan",
        says: &["overlaps"],
        ..STEP
    },
    Step {
        name: "kernel-not-above-4g",
        // xloadflags, bit 1: the kernel can be loaded above 4 GiB (Linux Documentation/arch/x86/boot.rst).
        // With 6 GiB of memory all hugepages are above.
        before: "cp /testbed/kernel /tmp/low\nprintf '\\1' | dd of=/tmp/low bs=1 seek=566 conv=notrunc status=none\n",
        command: "pinvisor run --noiommu --kernel /tmp/low --memory 256M --device $TESTBED_BDF_0",
        status: "4",
        error: "place",
        says: &["/tmp/low", "above 4 GiB"],
        ..STEP
    },
    Step {
        name: "fragmented",
        command: "testbed inside shape --singles 60 --block 4 -- pinvisor run --noiommu --kernel /testbed/kernel --memory 120M --device $TESTBED_BDF_0",
        status: "4",
        error: "place",
        says: &["fragmented", "largest", "in one piece", "hugepages=N"],
        ..STEP
    },
    Step {
        name: "initramfs-ends-early",
        // A file of sysfs is as long as a page, as stat(2) has it.
        command: "pinvisor run $ready --device $TESTBED_BDF_0 --initramfs $pool",
        before: "pool=/sys/kernel/mm/hugepages/hugepages-2048kB/nr_hugepages\n",
        status: "1",
        error: "load",
        says: &["initramfs", "/hugepages-2048kB/nr_hugepages"],
        ..STEP
    },
    Step {
        name: "config-space-askew",
        before: "echo 'b0080000-bfffffff : PCI ECAM 0000 [bus 00-ff]' | fake /proc/iomem\n",
        command: "pinvisor run $ready --device $TESTBED_BDF_0",
        after: "umount /proc/iomem\n",
        status: "2",
        error: "root",
        says: &["0xb0080000", "1 MiB"],
        ..STEP
    },
    Step {
        name: "command-line-too-long",
        before: "long=$(head -c 5000 /dev/zero | tr '\\0' x)\n",
        command: "pinvisor run $ready --device $TESTBED_BDF_0 --cmdline $long",
        status: "1",
        error: "params",
        says: &["5000"],
        ..STEP
    },
    Step {
        name: "guest-crash",
        command: "pinvisor run --noiommu --kernel /testbed/crash --memory 64M --device $TESTBED_BDF_0",
        status: "5",
        error: "guest-crash",
        says: &["triple fault"],
        ..STEP
    },
    Step {
        name: "guest-status",
        command: "pinvisor run $ready --device $TESTBED_BDF_0",
        status: "6",
        error: "guest-status",
        says: &["status 3"],
        ..STEP
    },
    Step {
        name: "no-window",
        // No bridge has a window in which the table of the guest's memory could stand.
        before: "echo 'b0000000-bfffffff : PCI ECAM 0000 [bus 00-ff]' | fake /proc/iomem\n",
        command: "pinvisor run $ready --device $TESTBED_BDF_0,dma=translate",
        after: "umount /proc/iomem\n",
        status: "4",
        error: "window",
        says: &["DMA window"],
        ..STEP
    },
    Step {
        name: "wanted-back",
        before: "(until grep -qs '\"ready\"' /tmp/events; do sleep 0.1; done; echo $TESTBED_BDF_0 > /sys/bus/pci/drivers/vfio-pci/unbind) & taker=$!\n",
        command: "pinvisor run --noiommu --kernel /testbed/endless --memory 64M --device $TESTBED_BDF_0 --event-file /tmp/events",
        after: "wait $taker; pinvisor bind $TESTBED_BDF_0\n",
        status: "3",
        error: "device-failed",
        says: &["$BDF", "the host wants it back"],
        ..STEP
    },
    Step {
        name: "report",
        command: "pinvisor stress --kernel /testbed/status --memory 64M --noiommu --device $TESTBED_BDF_0 --html /nowhere/report.html",
        status: "1",
        error: "report",
        says: &["/nowhere/report.html"],
        ..STEP
    },
];

/// A kernel that has no noiommu mode, hence no `IOMMU_IOAS_NOIOMMU_GET_PA`.
pub const BY_KERNEL: &[Step] = &[Step {
    name: "no-noiommu",
    command: "pinvisor run $ready --device $TESTBED_BDF_0",
    status: "2",
    error: "not-bound",
    says: &["$BDF", "vfio-pci", "CONFIG_VFIO_NOIOMMU", "7.3"],
    ..STEP
}];

/// Code of a guest that switches itself off with status 3: mov $0x600, %dx; mov $0x03000034, %eax (sleep control
/// in the low byte, the status in the high one); out %eax, %dx; hlt; jmp back.
const STATUS: &[u8] = &[
    0x66, 0xba, 0x00, 0x06, 0xb8, 0x34, 0x00, 0x00, 0x03, 0xef, 0xf4, 0xeb, 0xfd,
];
/// The same with status 0, which is a good end.
const OFF: &[u8] = &[
    0x66, 0xba, 0x00, 0x06, 0xb8, 0x34, 0x00, 0x00, 0x00, 0xef, 0xf4, 0xeb, 0xfd,
];
/// Code of a guest that does nothing: hlt; jmp back.
const ENDLESS: &[u8] = &[0xf4, 0xeb, 0xfd];
/// Code of a guest that has no handler for what it does: ud2.
const CRASH: &[u8] = &[0x0f, 0x0b];

/// Refusals for the state of the machine or for files, one after the other in one boot.
pub fn by_state_and_files() -> Result<CaseResult> {
    let rig = Rig::new(8, "")?;
    let machine = machine(&rig)?
        .device("e1000e")
        .qemu_arg("-device")
        .qemu_arg("edu,bus=pcie.0,addr=5");
    run(&machine, &[BY_FILE, BY_STATE, ADDRESSES])
}

/// What a kernel without noiommu mode cannot do.
pub fn kernel_without_noiommu() -> Result<CaseResult> {
    let rig = Rig::new(8, "")?;
    let machine = machine(&rig)?.flavour(Flavour::NoNoiommu);
    run(&machine, &[BY_KERNEL, WITHOUT_NOIOMMU])
}

/// A machine on which the steps of this file, and of others, can be taken.
pub(super) fn machine(rig: &Rig) -> Result<Machine> {
    let edu = crate::paths::checkout().join("devices/profiles/edu.toml");
    let mut machine = rig
        .machine(setup::guest_kernel()?.bzimage())
        .memory("6G")
        .hugepages_2m(150)
        .file("edu.toml", edu);
    for (name, code) in [
        ("status", STATUS),
        ("off", OFF),
        ("endless", ENDLESS),
        ("crash", CRASH),
    ] {
        let path = rig.disk().with_file_name(name);
        write_guest(&path, code)?;
        machine = machine.file(name, path);
    }
    Ok(machine)
}

/// Takes the steps in one boot.
pub(super) fn run(machine: &Machine, lists: &[&'static [Step]]) -> Result<CaseResult> {
    let steps: Vec<&Step> = lists.iter().flat_map(|list| list.iter()).collect();
    let (findings, outcome) = take(machine, &steps, |_| String::new())?;
    Ok(findings.into_result(&outcome))
}

/// Takes the steps in one boot, runs the lines that `more` gives after each, and judges all but those.
pub(super) fn take(
    machine: &Machine,
    steps: &[&Step],
    more: impl Fn(&Step) -> String,
) -> Result<(Findings, Outcome)> {
    let script: String = steps
        .iter()
        .map(|step| step.script() + &more(step))
        .collect();
    let outcome = machine.run(
        &[
            script::PRELUDE,
            step::PRELUDE,
            "say bdf $TESTBED_BDF_0\n",
            &script,
            "say_hugepages after\nsay_processes\ntrue\n",
        ]
        .concat(),
    )?;
    let mut findings = Findings::default();
    findings.expect_eq("script", outcome.status, Status::Exited(0));
    for step in steps {
        step.judge(&mut findings, &outcome);
    }
    Ok((findings, outcome))
}

/// Writes an ELF file with one segment, entered at its first byte.
fn write_guest(path: &Path, code: &[u8]) -> Result<()> {
    const ADDRESS: u64 = 2 << 20;
    const HEADERS: u64 = 64 + 56;
    let length = code.len() as u64;
    let mut bytes = b"\x7fELF\x02\x01\x01\0\0\0\0\0\0\0\0\0".to_vec();
    // e_type ET_EXEC, e_machine EM_X86_64.
    bytes.extend([2, 0, 62, 0, 1, 0, 0, 0]);
    // e_entry, e_phoff, e_shoff.
    for value in [ADDRESS, 64, 0] {
        bytes.extend(value.to_le_bytes());
    }
    // e_flags; sizes and numbers of headers: one program header of 56 bytes.
    bytes.extend([0, 0, 0, 0]);
    for value in [64u16, 56, 1, 64, 0, 0] {
        bytes.extend(value.to_le_bytes());
    }
    // p_type PT_LOAD, p_flags read and execute.
    bytes.extend([1, 0, 0, 0, 5, 0, 0, 0]);
    // p_offset, p_vaddr, p_paddr, p_filesz, p_memsz, p_align.
    for value in [HEADERS, ADDRESS, ADDRESS, length, length, 4096] {
        bytes.extend(value.to_le_bytes());
    }
    bytes.extend(code);
    std::fs::write(path, bytes).at("write", path)
}
