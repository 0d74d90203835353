// SPDX-License-Identifier: Apache-2.0 OR BSD-3-Clause

//! Errors of every name.

use std::io;
use std::path::PathBuf;

use address::{Bdf, Gpa, Hpa};
use devices::mediate;
use devices::pci::RootError;
use guarded_nvme::controller::AttachError;
use guarded_nvme::fault::Unsuitable;
use host::{
    AvailableMemory, BindError, Encryption, GuardObstacle, KvmObstacle, MemoryLimit, OpenFiles,
    ResolvedDma, Use,
};
use iommufd_backend::TranslatedBar;
use iommufd_backend::hugepages::HugepageSize;
use software_memory::OutOfMemory;

use super::*;
use crate::arch::{AcpiError, NoRoomError, Overhead, ParamsError};
use crate::boot::LoadError;
use crate::boot::kernel::KernelError;
use crate::boot::place::PlaceError;
use crate::bus::slots::TooManyDevices;
use crate::config::ConfigError;
use crate::confine::ConfineError;
use crate::error::explain::process;
use crate::handover::Refusal;
use crate::memory::choice::Choice;
use crate::memory::guest::GuestRamError;
use crate::memory::pieces;
use crate::passthrough::guarded::GuardReason;

pub fn errno(number: i32) -> io::Error {
    io::Error::from_raw_os_error(number)
}

pub fn bdf() -> Bdf {
    "01:00.0".parse().unwrap()
}

pub fn all() -> Vec<Error> {
    let all = [
        config(),
        inspect(),
        bind(),
        keep(),
        kernel_side::all(),
        pin(),
        layout(),
        boot(),
        arch(),
        bus(),
        guard(),
        handover(),
        kvm(),
        run(),
        process_and_files(),
        confinement(),
    ];
    all.into_iter().flatten().collect()
}

fn config() -> Vec<Error> {
    let bdf = bdf();
    [
        ConfigError::GuestIommu.into(),
        ConfigError::PackedWithoutTree.into(),
        ValidateError::DeviceTwice { bdf },
        TooManyDevices {
            count: 40,
            most: 30,
        }
        .into(),
        ValidateError::MixedModes {
            translate: bdf,
            other: bdf,
            mode: host::DmaMode::Identity,
        },
    ]
    .map(Error::from)
    .into()
}

fn inspect() -> Vec<Error> {
    let bdf = bdf();
    let found = TranslatedBar {
        bar: 0,
        bus: address::BusAddr(0x1000),
        cpu: Hpa(0x2000),
    };
    [
        InspectError::NoiommuNotAccepted { bdf },
        InspectError::MemoryEncrypted {
            bdf,
            encryption: Encryption::Sme,
        },
        InspectError::BusAddresses { bdf, found },
        InspectError::BehindIommu { bdf },
        InspectError::NotOnGroupPath { bdf },
        InspectError::NotBehindIommu { bdf },
        InspectError::NoIdentity,
        InspectError::NotPacked {
            bdf,
            mode: ResolvedDma::Mediate,
        },
        InspectError::DeviceWithSoftware { bdf },
    ]
    .map(Error::from)
    .into()
}

fn bind() -> Vec<Error> {
    let bdf = bdf();
    let write = |kind: io::ErrorKind| BindError::BindWrite {
        what: "1".to_owned(),
        path: PathBuf::from("/sys/x"),
        source: kind.into(),
    };
    let own = [
        BindError::BindFacts(Backend::NoDevice { bdf }),
        BindError::BindBridge {
            bdf,
            class: 0x06_0400,
        },
        BindError::BindSilent { bdf },
        BindError::BindInUse {
            bdf,
            uses: vec![Use::Swap {
                block: "sda".to_owned(),
            }],
        },
        BindError::UnbindOpen {
            bdf,
            by: Use::Swap {
                block: "sda".to_owned(),
            },
        },
        BindError::BindUnsafeModeOff { bdf },
        BindError::BindNoNoiommu { bdf },
        BindError::BindNoVfioPci {
            reason: "none".to_owned(),
        },
        BindError::BindNotTaken {
            bdf,
            restored: None,
        },
        BindError::BindNoCdev {
            bdf,
            restored: None,
        },
        write(io::ErrorKind::ReadOnlyFilesystem),
        write(io::ErrorKind::PermissionDenied),
        write(io::ErrorKind::Other),
    ];
    let no_reset = |others| BindStageError::NoReset { bdf, others };
    let mut all: Vec<Error> = own.map(|error| BindStageError::from(error).into()).into();
    all.push(no_reset(vec![]).into());
    all.push(no_reset(vec![bdf, bdf]).into());
    all
}

fn keep() -> Vec<Error> {
    vec![
        KeepError::MemoryKept {
            bdf: bdf(),
            process: 7,
            status: keeper::Status::default(),
        }
        .into(),
        KeepError::from(KeeperError::Start(errno(libc::ENOENT))).into(),
        KeepError::from(KeeperError::Start(errno(libc::EMFILE))).into(),
    ]
}

fn pin() -> Vec<Error> {
    let hugepages = |got, free| PinError::TooFewHugepages {
        size: HugepageSize::Mib2,
        need: 300,
        got,
        free,
        total: 900,
    };
    let available = AvailableMemory {
        bytes: 1 << 20,
        limit: MemoryLimit::Machine,
    };
    let out_of_memory = OutOfMemory {
        needed: 2,
        page_size: 1,
        free: 1,
        placed: 1,
        total: 28 << 30,
    };
    [
        hugepages(0, 100),
        hugepages(32, 700),
        PinError::OutOfReach {
            need: 300,
            reached: 200,
            pinned: 400,
        },
        PinError::TooLittleMemory {
            bytes: 2 << 20,
            available,
        },
        PinError::LockedMemory {
            bytes: 2 << 20,
            limit: 1 << 20,
        },
        PinError::Software(out_of_memory.into()),
    ]
    .map(Error::from)
    .into()
}

fn layout() -> Vec<Error> {
    let moved = |found| LayoutError::Moved {
        gpa: Gpa(4096),
        planned: Hpa(4096),
        found,
    };
    [
        too_many_pieces().into(),
        PlanError::NotPhysical.into(),
        PlanError::TooFragmented {
            regions: 9,
            most: 8,
            what: "KVM has memslots for",
        }
        .into(),
        GuestRamError {
            slots: 2,
            source: "odd".into(),
        }
        .into(),
        TableError::Pages {
            gpa: Gpa(0),
            hpa: Hpa(0),
            len: 1,
        }
        .into(),
        moved(None),
        moved(Some(Hpa(0))),
    ]
    .map(Error::from)
    .into()
}

/// Pieces that are more than are safe.
fn too_many_pieces() -> TooManyPieces {
    let choice = Choice {
        pinned: 200,
        kept: Vec::new(),
        chosen: Overhead {
            extents: 1000,
            ..Overhead::default()
        },
        naive: Overhead::default(),
        placed: true,
        most: 127,
        safe_pages: Some(194),
    };
    pieces::check(&choice, HugepageSize::Mib2).unwrap_err()
}

fn boot() -> Vec<Error> {
    let not_kernel = |unpack| KernelError::NotKernel {
        path: "k".into(),
        found: "a gzip file",
        unpack,
    };
    let place = |source| BootError::Place {
        kernel: "k".into(),
        source,
    };
    let out_of_reach = |from| PlaceError::OutOfReach {
        need: 1,
        from,
        below: Gpa(1 << 32),
        reason: "it is so",
    };
    [
        KernelError::Read {
            path: "k".into(),
            source: errno(libc::ENOENT),
        }
        .into(),
        not_kernel(None).into(),
        not_kernel(Some("gunzip k".to_owned())).into(),
        place(PlaceError::TooFragmented {
            what: "kernel",
            need: 1,
            lowest: String::new(),
            largest: 0,
        }),
        place(PlaceError::TooLarge {
            what: "kernel",
            need: 1,
            room: 0,
            besides: "",
        }),
        place(out_of_reach(Gpa(0))),
        place(out_of_reach(Gpa(1 << 21))),
        LoadError {
            what: "initramfs",
            source: "odd".into(),
        }
        .into(),
    ]
    .map(Error::from)
    .into()
}

fn arch() -> Vec<Error> {
    let refused = |number| EntryError::Kvm {
        what: "CPUID",
        source: kvm_ioctls::Error::new(number),
    };
    [
        ParamsError::CommandLineNul.into(),
        ParamsError::Unbootable {
            word: "noapic".to_owned(),
            reason: "it hangs",
        }
        .into(),
        refused(libc::EINVAL).into(),
        refused(libc::ENOMEM).into(),
        NoRoomError {
            range: Gpa(0)..Gpa(1),
            place: Gpa(0)..Gpa(1),
        }
        .into(),
        AcpiError::TooLong { need: 2, room: 1 }.into(),
    ]
    .map(|error: ArchError| error.into())
    .into()
}

fn bus() -> Vec<Error> {
    let bdf = bdf();
    [
        NoEcamError.into(),
        RootError::Ecam { base: Gpa(1) }.into(),
        vfio_pci::SetupError::ConfigSize {
            device: "01:00.0".to_owned(),
            size: 3,
        }
        .into(),
        BusError::Engine("odd".into()),
        WindowError::NoRoom {
            what: "table",
            size: 4096,
        }
        .into(),
        BusError::NoProfile {
            bdf,
            vendor: 0x8086,
            device: 1,
        },
        mediate::SetupError::OtherDevice {
            device: "01:00.0".to_owned(),
            profile: "x".to_owned(),
            vendor: 0,
            id: 0,
        }
        .into(),
        ProfileError::TooLarge {
            file: "p".to_owned(),
            length: 2,
            limit: 1,
        }
        .into(),
    ]
    .map(|error: BusError| error.into())
    .into()
}

fn guard() -> Vec<Error> {
    let bdf = bdf();
    [
        GuardReason::Obstacle(GuardObstacle::VirtualFunction),
        AttachError::from(Unsuitable::PageSize(13)).into(),
        GuardReason::NoRoom(0x8000),
    ]
    .map(|reason| GuardError { bdf, reason }.into())
    .into()
}

fn kvm() -> Vec<Error> {
    let open = |number| VmError::Open(kvm_ioctls::Error::new(number));
    let irq = |number| IrqError::Refused {
        operation: "raise",
        gsi: 4,
        source: kvm_ioctls::Error::new(number),
    };
    vec![
        open(libc::ENOENT).into(),
        open(libc::EACCES).into(),
        open(libc::EMFILE).into(),
        open(libc::EPERM).into(),
        open(libc::EBUSY).into(),
        VmError::Lacks(KvmObstacle::ApiVersion(1)).into(),
        VmError::Cpus { cpus: 9, most: 8 }.into(),
        VmError::NoSlot {
            gpa: Gpa(0),
            len: 4096,
        }
        .into(),
        VmError::Refused {
            operation: "create a VM",
            source: kvm_ioctls::Error::new(libc::ENOMEM),
        }
        .into(),
        IrqError::NoRoute.into(),
        irq(libc::EMFILE).into(),
    ]
}

fn handover() -> Vec<Error> {
    [
        Refusal::Closed.into(),
        Refusal::Version {
            format: "other".to_owned(),
            version: 2,
        }
        .into(),
        HandoverError::HandoverSocket {
            operation: "connect to",
            path: "handover".into(),
            source: std::io::ErrorKind::NotFound.into(),
        },
        HandoverError::HandoverOfGroups,
    ]
    .map(Error::from)
    .into()
}

fn run() -> Vec<Error> {
    [
        RunError::TooFewFiles {
            limit: 20,
            need: 100,
            files: OpenFiles {
                devices: 1,
                guarded: 1,
                cpus: 1,
                rings: 0,
            },
        },
        RunError::Panicked,
        RunError::AccessFailed { at: None },
        RunError::AccessFailed { at: Some(Gpa(0)) },
        RunError::NoWorker,
        RunError::GuestCrash("triple fault".to_owned()),
        RunError::GuestReset,
        RunError::GuestStatus(3),
        RunError::DeviceFailed {
            bdf: bdf(),
            reason: "the host requested it back".to_owned(),
        },
    ]
    .map(Error::from)
    .into()
}

fn process_and_files() -> Vec<Error> {
    let file = |number| FileError {
        what: "initramfs",
        path: "i".into(),
        source: errno(number),
    };
    vec![
        process("wait for signals")(errno(libc::EIO)).into(),
        process("start a vCPU")(errno(libc::EAGAIN)).into(),
        process("create an eventfd")(errno(libc::EMFILE)).into(),
        process("size guest memory")(errno(libc::EFBIG)).into(),
        file(libc::ENOENT).into(),
        file(libc::EPERM).into(),
    ]
}

fn confinement() -> Vec<Error> {
    [
        ConfineError::JailUser {
            user: "u".to_owned(),
            reason: "there is no such user".to_owned(),
        },
        ConfineError::JailRoot {
            path: "r".into(),
            source: errno(libc::ENOENT),
        },
        ConfineError::JailRestart {
            option: "--jail-root",
        },
        ConfineError::SeccompFilter {
            thread: "vcpu",
            source: errno(libc::EINVAL),
        },
        ConfineError::Confine {
            operation: "drop capabilities",
            source: errno(libc::EINVAL),
        },
    ]
    .map(Error::from)
    .into()
}
