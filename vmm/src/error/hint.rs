//! What the user can do about an error.

use std::io;

use iommufd_backend::hugepages::HugepageSize;
use iommufd_backend::software::SoftwareError;

use super::cause::{self, Limits};
use super::{Backend, Error, names};
use crate::arch::ParamsError;
use crate::arch::low;
use crate::boot::kernel::KernelError;
use crate::boot::place::PlaceError;
use crate::kvm::vm::VmError;
use crate::memory::guest::GuestRamError;
use crate::memory::plan::PlanError;

/// What lets a process have more threads.
const MORE_TASKS: &str = "raise pids.max of the control group, which is TasksMax= of a systemd unit, the user's \
                          RLIMIT_NPROC (ulimit -u), or the limit on address space (ulimit -v)";

/// Whether the kernel has no thread to give (clone(2)).
fn is_again(source: &(dyn std::error::Error + 'static)) -> bool {
    let error = source.downcast_ref::<io::Error>();
    error.is_some_and(|error| error.raw_os_error() == Some(libc::EAGAIN))
}

impl Error {
    /// What the user can do about it, where that is known.
    #[must_use]
    pub fn hint(&self) -> Option<String> {
        self.hint_under(Limits::read())
    }

    /// The same where these limits apply.
    pub(super) fn hint_under(&self, limits: Limits) -> Option<String> {
        let explained = || limits.explain(cause::errno(self)?);
        match self {
            // What else makes them fail is looked at only where no limit does.
            Self::Backend(Backend::Map { .. }) | Self::GuestRam(GuestRamError::Map(_)) => {
                explained().or_else(|| self.own_hint())
            }
            Self::Backend(Backend::Pin { source, .. })
                if source.raw_os_error() == Some(libc::ENOMEM)
                    && !limits.limit_locked_memory() =>
            {
                Some(
                    "this machine, or the control group, has no memory left: give the guest less, or \
                     reserve more hugepages"
                        .to_owned(),
                )
            }
            _ => self.own_hint().or_else(explained),
        }
    }

    /// What can be done about this kind of error, whatever the limits of this process are.
    fn own_hint(&self) -> Option<String> {
        match self {
            Self::NoiommuNotAccepted { .. } => Some("if you accept that, add --noiommu".to_owned()),
            Self::MemoryEncrypted { encryption, .. } => Some(encryption.hint().to_owned()),
            Self::Bind(error) => error.hint(),
            Self::BusAddresses { .. } => Some(
                "put the device behind a bridge that does not translate: another slot, or a \
                 controller such as VMD turned off in the firmware"
                    .to_owned(),
            ),
            Self::BehindIommu { .. } => {
                Some("leave dma= out: the IOMMU translates for the device".to_owned())
            }
            Self::MixedModes { .. } => Some("run them in two guests".to_owned()),
            Self::NoProfile { bdf, .. } => Some(format!(
                "describe its registers: --device {bdf},dma=mediate,profile=FILE"
            )),
            Self::NotBehindIommu { .. } => {
                Some("leave dma=iommu out and read what --noiommu means".to_owned())
            }
            Self::NoReset { bdf, others } => {
                let first = match others.as_slice() {
                    [] => "give it a slot of its own, where its bus can be reset".to_owned(),
                    _ => format!(
                        "pass them through together: --device {}",
                        names(others, " --device ")
                    ),
                };
                Some(format!("{first}; or accept it: --device {bdf},reset=none"))
            }
            Self::MemoryKept { bdf, .. } => Some(format!("pinvisor release {bdf}")),
            Self::Backend(error) | Self::GuestRam(GuestRamError::Map(error)) => error.hint(),
            Self::Vm(VmError::Open(error)) => Some(
                match error.errno() {
                    libc::ENOENT => {
                        "the CPU's virtualisation must be on in the firmware and the \
                                     kernel needs CONFIG_KVM_INTEL or CONFIG_KVM_AMD"
                    }
                    libc::EACCES => "run as root or join the group kvm",
                    _ => return None,
                }
                .to_owned(),
            ),
            Self::NoEcam(_) => Some(
                "make room below 4 GiB: turn \"Above 4G decoding\" on in the firmware, or take a \
                 device with large BARs out; /proc/iomem shows what is there"
                    .to_owned(),
            ),
            Self::Moved { .. } => Some(
                "devices went on using the page where it had been: restart this machine; a \
                 process took the page out of the memory file, or memory failed (dmesg | grep -i 'memory \
                 failure'), else please report it"
                    .to_owned(),
            ),
            Self::Software(SoftwareError::OutOfMemory(_)) => {
                Some("give the guest less memory".to_owned())
            }
            Self::TooFewHugepages {
                size,
                need,
                got,
                free,
                total,
            } => Some(too_few_hugepages(*size, need.saturating_sub(*got), (*free, *total))),
            Self::TooFewFiles { need, .. } => Some(host::open_files_hint(*need)),
            Self::TooLittleMemory { available, .. } => Some(available.hint()),
            Self::NoWorker => Some(MORE_TASKS.to_owned()),
            Self::Process { source, .. } if is_again(source.as_ref()) => {
                Some(MORE_TASKS.to_owned())
            }
            Self::GuestReset => Some(
                "Linux restarts after a panic, too: look at what its serial port printed last; \
                 --on-reset restart starts it anew"
                    .to_owned(),
            ),
            Self::TooManyPieces(error) => Some(error.hint()),
            Self::Kernel(KernelError::NotKernel { unpack, .. }) => unpack.clone(),
            Self::Params(ParamsError::Unbootable { word, .. }) => {
                Some(format!("leave {word} out of --cmdline"))
            }
            Self::Place {
                source: PlaceError::TooLarge { .. },
                ..
            } => Some("give the guest more --memory".to_owned()),
            Self::Place {
                source: PlaceError::OutOfReach { from, .. },
                ..
            } if from.0 < low::SIZE => Some(
                "link it above the first MiB, or boot it by a 64-bit entry point, at which it can \
                 be anywhere"
                    .to_owned(),
            ),
            Self::Place {
                source: PlaceError::OutOfReach { .. },
                ..
            } => Some(
                "boot a kernel that can be moved, such as a bzImage or vmlinux of Linux; or let no \
                 device need identity memory (dma=iommu, translate or mediate): guest memory then \
                 begins at 2 MiB"
                    .to_owned(),
            ),
            Self::Place {
                source: PlaceError::TooFragmented { .. },
                ..
            }
            | Self::Plan(PlanError::TooFragmented { .. }) => Some(
                "reserve hugepages on the kernel's command line (hugepages=N), before memory \
                 gets fragmented, or use larger ones (hugepagesz=1G hugepages=N)"
                    .to_owned(),
            ),
            _ => None,
        }
    }
}

/// What to do where `missing` hugepages more are needed, and the pool has so many free ones, of so many in
/// all.
fn too_few_hugepages(size: HugepageSize, missing: u64, (free, total): (u64, u64)) -> String {
    if missing <= free {
        return format!(
            "raise hugetlb.{size}B.max of the control group, or let this process have memory of \
             all NUMA nodes (numactl, cpuset.mems)"
        );
    }
    let pool = size.pool_name();
    let total = total.saturating_add(missing - free);
    format!(
        "echo {total} > /sys/kernel/mm/hugepages/{pool}/nr_hugepages; if the number that is read there \
         is lower afterwards, memory is too fragmented: echo 1 > /proc/sys/vm/compact_memory and \
         repeat, or reserve them at boot (hugepagesz={size} hugepages={total})"
    )
}
