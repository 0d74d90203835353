// SPDX-License-Identifier: Apache-2.0 OR BSD-3-Clause

//! A machine without an IOMMU, booted to run one script.

mod autopsy;
mod place;
mod qemu;
mod run;
mod share;

use std::fmt;
use std::path::PathBuf;
use std::time::Duration;

use crate::error::Result;
use crate::setup::{Arch, Flavour};

pub use run::{handle_interrupts, interrupted};

/// Whether the test machine has an IOMMU.
#[derive(Debug, Clone, Copy, PartialEq, Eq, clap::ValueEnum)]
pub enum Iommu {
    /// None: what the testbed is for.
    None,
    /// QEMU's `intel-iommu` with interrupt remapping.
    Intel,
}

/// The chipset.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Board {
    /// PCI Express, with memory-mapped config space; on aarch64 with a GICv3 and an ITS.
    Express,
    /// A PC with conventional PCI, as clouds have it: config space is reached by ports only. There are no marks in its
    /// trace.
    Pc,
    /// A machine of aarch64 with the interrupt controller and the CPU of Raspberry Pi 4: a GIC-400 with a GICv2m frame, and
    /// a Cortex-A72.
    Gic400,
}

impl Board {
    /// QEMU's names for it and for its CPU.
    fn names(self, arch: Arch) -> (&'static str, &'static str) {
        match (arch, self) {
            (Arch::X86_64, Self::Pc) => ("pc", "EPYC,+svm,+npt"),
            (Arch::X86_64, Self::Express | Self::Gic400) => ("q35", "EPYC,+svm,+npt"),
            (Arch::Aarch64, Self::Gic400) => ("virt,virtualization=on,gic-version=2", "cortex-a72"),
            (Arch::Aarch64, Self::Express | Self::Pc) => {
                ("virt,virtualization=on,gic-version=3", "cortex-a76")
            }
        }
    }
}

/// A disk image for a `--device` that names it as `drive=ID`.
#[derive(Debug, Clone)]
struct Disk {
    id: String,
    image: PathBuf,
    keeps_writes: bool,
}

/// A test machine to be: what it has, and what is watched.
#[derive(Debug, Clone)]
pub struct Machine {
    arch: Arch,
    board: Board,
    memory: String,
    cpus: u32,
    hugepages_2m: u32,
    hugepages_1g: u32,
    devices: Vec<String>,
    disks: Vec<Disk>,
    qemu_args: Vec<String>,
    kernel_args: Vec<String>,
    flavour: Flavour,
    iommu: Iommu,
    timeout: Option<Duration>,
    patience: Option<Duration>,
    traces: Vec<String>,
    files: Vec<(String, PathBuf)>,
    all_disks_are_snapshots: bool,
    counts: bool,
    requests_per_second: Option<u32>,
}

impl Default for Machine {
    fn default() -> Self {
        Self {
            arch: Arch::X86_64,
            board: Board::Express,
            memory: "2G".into(),
            cpus: 1,
            hugepages_2m: 0,
            hugepages_1g: 0,
            devices: Vec::new(),
            disks: Vec::new(),
            qemu_args: Vec::new(),
            kernel_args: Vec::new(),
            flavour: Flavour::Groups,
            iommu: Iommu::None,
            timeout: None,
            patience: None,
            traces: Vec::new(),
            files: Vec::new(),
            all_disks_are_snapshots: false,
            counts: false,
            requests_per_second: None,
        }
    }
}

impl Machine {
    /// A machine with 2 GiB, one processor, no IOMMU and the kernel with VFIO groups.
    #[must_use]
    pub fn builder() -> Self {
        Self::default()
    }

    /// Another architecture: no PC, and without this machine's files.
    #[must_use]
    pub fn arch(mut self, arch: Arch) -> Self {
        self.arch = arch;
        self
    }

    /// Another chipset.
    #[must_use]
    pub fn board(mut self, board: Board) -> Self {
        self.board = board;
        self
    }

    /// Memory, as QEMU's `-m` takes it.
    #[must_use]
    pub fn memory(mut self, size: &str) -> Self {
        self.memory = size.into();
        self
    }

    /// Number of processors. With more than one QEMU 10.0 runs them in threads, and one that stores to a device
    /// while another changes the memory map stores to another device (system/physmem.c, iotlb_to_section): machines
    /// fall silent.
    #[must_use]
    pub fn cpus(mut self, count: u32) -> Self {
        self.cpus = count;
        self
    }

    /// Hugepages of 2 MiB reserved at boot.
    #[must_use]
    pub fn hugepages_2m(mut self, count: u32) -> Self {
        self.hugepages_2m = count;
        self
    }

    /// Hugepages of 1 GiB reserved at boot.
    #[must_use]
    pub fn hugepages_1g(mut self, count: u32) -> Self {
        self.hugepages_1g = count;
        self
    }

    /// Adds a PCI device, as QEMU's `-device` takes it. The first is at `$TESTBED_BDF_0` for the script.
    #[must_use]
    pub fn device(mut self, argument: &str) -> Self {
        self.devices.push(argument.into());
        self
    }

    /// Adds a disk image for a device that names it `drive=ID`; what is written to it is lost.
    #[must_use]
    pub fn disk(mut self, id: &str, image: impl Into<PathBuf>) -> Self {
        self.disks.push(Disk {
            id: id.into(),
            image: image.into(),
            keeps_writes: false,
        });
        self
    }

    /// Adds a disk image that keeps what is written to it.
    #[must_use]
    pub fn writable_disk(mut self, id: &str, image: impl Into<PathBuf>) -> Self {
        self.disks.push(Disk {
            id: id.into(),
            image: image.into(),
            keeps_writes: true,
        });
        self
    }

    /// Makes every disk a snapshot, those in [`qemu_arg`](Self::qemu_arg) among them.
    #[must_use]
    pub fn all_disks_are_snapshots(mut self) -> Self {
        self.all_disks_are_snapshots = true;
        self
    }

    /// Makes its clock count instructions, one for each nanosecond: it skips idle time, and guests may run in it. Only for
    /// x86-64. QEMU is built first if need be.
    #[must_use]
    pub fn counting(mut self) -> Self {
        self.counts = true;
        self
    }

    /// Makes every disk added by [`disk`](Self::disk) or [`writable_disk`](Self::writable_disk) slow, so that its controller
    /// always has commands that are not done yet: what these read is in memory only later.
    #[must_use]
    pub fn requests_per_second(mut self, most: u32) -> Self {
        self.requests_per_second = Some(most);
        self
    }

    /// Adds an argument of QEMU's.
    #[must_use]
    pub fn qemu_arg(mut self, argument: &str) -> Self {
        self.qemu_args.push(argument.into());
        self
    }

    /// Adds a word to the kernel's command line.
    #[must_use]
    pub fn kernel_arg(mut self, argument: &str) -> Self {
        self.kernel_args.push(argument.into());
        self
    }

    /// The kernel to boot.
    #[must_use]
    pub fn flavour(mut self, flavour: Flavour) -> Self {
        self.flavour = flavour;
        self
    }

    /// With or without an IOMMU.
    #[must_use]
    pub fn iommu(mut self, iommu: Iommu) -> Self {
        self.iommu = iommu;
        self
    }

    /// Ends the machine after this time.
    #[must_use]
    pub fn timeout(mut self, limit: Duration) -> Self {
        self.timeout = Some(limit);
        self
    }

    /// Ends the machine if neither script, kernel nor trace has printed anything for this time.
    #[must_use]
    pub fn patience(mut self, limit: Duration) -> Self {
        self.patience = Some(limit);
        self
    }

    /// Watches a trace event of QEMU's, such as `pci_nvme_map_addr`.
    #[must_use]
    pub fn trace(mut self, event: &str) -> Self {
        self.traces.push(event.into());
        self
    }

    /// Fills freed pages with a pattern and checks it when they are used again.
    #[must_use]
    pub fn page_poison(self) -> Self {
        self.kernel_arg("page_poison=1")
    }

    /// Gives the script a copy of a file as `/testbed/NAME`.
    #[must_use]
    pub fn file(mut self, name: &str, source: impl Into<PathBuf>) -> Self {
        self.files.push((name.into(), source.into()));
        self
    }

    /// Boots the machine, runs `script` by `/bin/sh` as root on it, hands its output to `sink` as it comes,
    /// and powers it off.
    ///
    /// # Errors
    /// [`Error::MachineDied`](crate::Error::MachineDied) if no status came back,
    /// [`Error::Missing`](crate::Error::Missing) before [`setup`](crate::setup::setup),
    /// [`Error::Interrupted`](crate::Error::Interrupted), or a file operation's error.
    pub fn run_streaming(&self, script: &str, sink: &mut dyn FnMut(&[u8])) -> Result<Outcome> {
        run::run(self, script, sink)
    }

    /// Like [`run_streaming`](Self::run_streaming), without showing anything.
    ///
    /// # Errors
    /// Those of [`run_streaming`](Self::run_streaming).
    pub fn run(&self, script: &str) -> Result<Outcome> {
        self.run_streaming(script, &mut |_| ())
    }

    /// Boots the machine with a shell on this terminal.
    ///
    /// # Errors
    /// Those of [`run_streaming`](Self::run_streaming).
    pub fn shell(&self) -> Result<Outcome> {
        run::shell(self)
    }
}

/// How a script ended.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Status {
    /// It exited with this status.
    Exited(i32),
    /// It was not finished in time.
    TimedOut,
}

impl Status {
    /// The exit status to pass on: 124 for a time-out, as of `timeout(1)`.
    #[must_use]
    pub fn code(self) -> i32 {
        match self {
            Self::Exited(code) => code,
            Self::TimedOut => 124,
        }
    }
}

impl fmt::Display for Status {
    fn fmt(&self, formatter: &mut fmt::Formatter<'_>) -> fmt::Result {
        match self {
            Self::Exited(code) => write!(formatter, "exit status {code}"),
            Self::TimedOut => write!(formatter, "timed out"),
        }
    }
}

/// What came out of a run.
#[derive(Debug, Clone)]
pub struct Outcome {
    /// How the script ended.
    pub status: Status,
    /// What it wrote to its standard output and standard error.
    pub output: String,
    /// What the test machine's kernel wrote.
    pub console: String,
    /// The trace events that were asked for, one per line, in QEMU's words.
    pub trace: String,
}
