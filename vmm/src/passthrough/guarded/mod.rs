// SPDX-License-Identifier: Apache-2.0 OR BSD-3-Clause

//! Guarded NVMe: what the crate `guarded-nvme` needs of the host and of KVM.
//!
//! | what | where |
//! |---|---|
//! | registers, bus mastering, reset of the device | [`mod@device`] |
//! | memory that it accesses besides the guest's | [`pages`] |
//! | the guest: memory, translation, doorbells, interrupts | [`machine`], [`devices::guarded_nvme`] |
//! | doorbells that the guest writes without an exit | [`doorbells`] |
//! | the thread | [`worker`] |
//!
//! Guest memory and the monitor's pages stay pinned until there is evidence that the device is quiet, as for every device
//! ([`teardown`](crate::teardown)). The thread ends before that evidence is looked for.

mod device;
mod doorbells;
mod error;
mod machine;
mod pages;
#[cfg(test)]
mod soft;
mod worker;

use std::io;
use std::sync::Arc;
use std::thread;

use address::{Gpa, Iova};
use devices::guarded_nvme::{GuardedNvme, Options, Shared};
use devices::pci::Identity;
use guarded_nvme::controller::{Config, Controller, check};
use guarded_nvme::device::DeviceError;
use guarded_nvme::fault::Unsuitable;
use guarded_nvme::limits::MAX_MDTS;
use guarded_nvme::polling::Polling;
use guarded_nvme::registers::Layout;
use host::GuardObstacle;
use iommufd_backend::{NoiommuSpace, OwnPages, VfioDevice};
use pci_config::InterruptKind;
use pci_config::regs::{REVISION, SUBSYSTEM};
use vmm_sys_util::eventfd::EventFd;

use self::device::{Link, NvmeDevice, Parts};
use self::doorbells::DoorbellPages;
use self::machine::{Machine, Monitor, Unchecked};
use self::worker::Work;
use super::assigned::AssignedDevice;
use crate::bus::allocator::BusAllocator;
use crate::bus::lines::InterruptLines;
use crate::config::Poll;
use crate::confine::Confinement;
use crate::kvm::eventfd;
use crate::kvm::vm::Vm;
use crate::memory::guest::SharedRam;
use crate::memory::table::RamTable;
use crate::run::exit::ExitSender;

pub use error::{GuardError, GuardReason};
pub use pages::Pool;
pub use worker::GuardedController;

/// Where the monitor's pages are in the I/O address space, those of one device behind another's: a cookie, as guest
/// memory's place at 1 GiB ([`Backing`](crate::memory::backing)), and below that. 30 devices of guests with 32 CPUs take
/// less.
const COOKIE: Iova = Iova(1 << 16);
/// Pages that are pinned beyond those that are used, so that there are 4 in a row for each queue more often.
const SPARE_PAGES: usize = 64;
/// The page of the host, which each doorbell of the guest's has to itself.
const HOST_PAGE: u64 = 4096;

/// What a guest with so many CPUs is offered: a queue pair for each, and a vector for each and for the admin queue, as far
/// as the device has `vectors`.
fn config(cpus: u8, vectors: u16) -> Config {
    let queues = u16::from(cpus).max(1);
    Config {
        queues,
        vectors: vectors.min(queues + 1),
        mdts: MAX_MDTS,
    }
}

/// Whether the host has a CPU for each of these threads.
fn has_cpu(threads: usize) -> bool {
    thread::available_parallelism().is_ok_and(|cpus| cpus.get() >= threads)
}

/// When a controller's thread polls, which has a CPU to itself or has not.
fn polling(poll: Poll, has_cpu: bool) -> Polling {
    match poll {
        Poll::Off => Polling::Never,
        Poll::Auto if !has_cpu => Polling::Never,
        Poll::Auto => Polling::BUSY,
        Poll::On => Polling::Always,
    }
}

fn name(polling: Polling) -> &'static str {
    match polling {
        Polling::Never => "never",
        Polling::WhileBusy { .. } => "while busy",
        Polling::Always => "always",
    }
}

/// Why a controller that is bound cannot be guarded, by its registers. Memory decode of the device is on meanwhile.
///
/// # Errors
/// [`iommufd_backend::Error`]
pub fn unsuitable(device: &VfioDevice) -> Result<Option<Unsuitable>, iommufd_backend::Error> {
    let (cap, version) = device::read_identity(device)?;
    Ok(check(cap, version).err())
}

/// Takes and pins the pages of a device's queues, where `before` bytes are pinned for others.
///
/// # Errors
/// [`iommufd_backend::Error`]
pub fn pin_pages(
    space: &mut NoiommuSpace,
    cpus: u8,
    before: u64,
) -> Result<Arc<Pool>, iommufd_backend::Error> {
    let mut pages = OwnPages::new(config(cpus, 1).pages() + SPARE_PAGES)?;
    pages.pin(COOKIE + before, |request| space.pin(request))?;
    let pool = Pool::new(pages);
    pool.log();
    Ok(pool)
}

/// What a controller is connected to.
#[derive(Debug)]
pub struct Surroundings<'a> {
    /// The guest's machine.
    pub vm: &'a Arc<Vm>,
    /// CPUs of the guest.
    pub cpus: u8,
    /// How the controller's thread waits.
    pub poll: Poll,
    /// Threads that may have work at the same time: the guest's CPUs and its guarded controllers.
    pub threads: usize,
    /// Its messages.
    pub lines: InterruptLines,
    /// Where its memory is.
    pub table: &'a Arc<RamTable>,
    /// Its memory.
    pub ram: SharedRam,
    /// Where a panic of the controller's thread is reported.
    pub exits: &'a ExitSender,
    /// How that thread is confined.
    pub confinement: &'a Confinement,
    /// [`Layout::forwards_unchecked`](crate::Layout::forwards_unchecked)
    pub forwards_unchecked: bool,
}

/// Puts the monitor between a device and its guest: the function for the guest's bus, and the controller at work.
///
/// # Errors
/// [`GuardError`]
pub fn guard(
    assigned: &AssignedDevice,
    bus: &mut BusAllocator,
    around: Surroundings<'_>,
) -> Result<(GuardedNvme, GuardedController), GuardError> {
    let bdf = assigned.bdf();
    let link = Link::new(Arc::clone(&assigned.device));
    let guarded = try_guard(assigned, bus, around, &link);
    guarded.map_err(|reason| {
        link.cut();
        GuardError { bdf, reason }
    })
}

fn try_guard(
    assigned: &AssignedDevice,
    bus: &mut BusAllocator,
    around: Surroundings<'_>,
    link: &Link,
) -> Result<(GuardedNvme, GuardedController), GuardReason> {
    let bdf = assigned.bdf();
    let config = config(
        around.cpus,
        assigned.info.interrupts[InterruptKind::Msix].count,
    );
    if config.vectors == 0 {
        return Err(GuardObstacle::NoMsix.into());
    }
    let layout = Layout::new(HOST_PAGE, config.queues, config.vectors)?;
    let bell = Arc::new(eventfd::new()?);
    let room = GuardReason::NoRoom(layout.size());
    let bar = bus.bar(layout.size(), Gpa(u64::MAX)).ok_or(room)?;
    let has_cpu = has_cpu(around.threads);
    let polling = polling(around.poll, has_cpu);
    let polls = polling != Polling::Never;
    let doorbells =
        DoorbellPages::new(&layout, bar, Arc::clone(around.vm), polls).map_err(failed)?;
    let monitor = Monitor {
        lines: around.lines,
        bell: Arc::clone(&bell),
        doorbells,
    };
    let shared = Shared::new(layout, Box::new(monitor));
    let (device, interrupts) = device(assigned, link, config)?;
    let machine = Machine {
        table: Arc::clone(around.table),
        ram: around.ram,
        shared: Arc::clone(&shared),
        unchecked: around.forwards_unchecked.then(Unchecked::default),
    };
    let controller = Controller::attach(device, machine, config)?;
    shared.begin(controller.identity());
    let function = GuardedNvme::new(Options {
        identity: identity(&assigned.device)?,
        bar,
        shared: Arc::clone(&shared),
    })?;
    log::info!(
        "{bdf}: guarded: {} queues of {} entries, {} vectors, polls {}",
        config.queues,
        (controller.identity().cap(0) & 0xffff) + 1,
        config.vectors,
        name(polling)
    );
    let work = Work {
        bdf,
        controller,
        shared,
        bell,
        interrupts,
        polling,
        has_cpu,
    };
    let link = link.clone();
    let exits = around.exits.clone();
    let controller = GuardedController::spawn(work, move || link.cut(), exits, around.confinement)?;
    Ok((function, controller))
}

/// The device, with an eventfd for each vector.
fn device(
    assigned: &AssignedDevice,
    link: &Link,
    config: Config,
) -> Result<(NvmeDevice, Arc<[EventFd]>), GuardReason> {
    let interrupts = (0..config.vectors)
        .map(|_| eventfd::new())
        .collect::<io::Result<Arc<[EventFd]>>>()?;
    let pool = assigned.own_pages.clone().ok_or_else(no_pages)?;
    let device = NvmeDevice::new(Parts {
        link: link.clone(),
        reset: assigned.reset.clone(),
        pool,
        interrupts: Arc::clone(&interrupts),
        bar: assigned.info.bars[0].host_address,
        queues: config.queues,
    })?;
    Ok((device, interrupts))
}

fn failed(error: iommufd_backend::Error) -> DeviceError {
    DeviceError(Box::new(error))
}

fn no_pages() -> GuardReason {
    io::Error::other("no memory was pinned for it").into()
}

/// The IDs that the guest sees, which are the device's.
fn identity(device: &VfioDevice) -> Result<Identity, GuardReason> {
    let dword = |offset| {
        let mut data = [0; 4];
        device.config_read(offset, &mut data).map_err(failed)?;
        let [a, b, c, d] = data;
        Ok::<_, GuardReason>([u16::from_le_bytes([a, b]), u16::from_le_bytes([c, d])])
    };
    let [vendor, device_id] = dword(0)?;
    let [revision, _] = dword(REVISION)?;
    let [subsystem_vendor, subsystem] = dword(SUBSYSTEM)?;
    Ok(Identity {
        vendor,
        device: device_id,
        revision: revision.to_le_bytes()[0],
        class: 0,
        subsystem_vendor,
        subsystem,
        pin: None,
    })
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::bus::slots::MAX_SLOTS;
    use crate::config::MOST_CPUS;

    #[test]
    fn a_guest_gets_a_queue_and_a_vector_for_each_cpu_as_far_as_there_are_vectors() {
        let found = |cpus, vectors| {
            let config = config(cpus, vectors);
            (config.queues, config.vectors)
        };
        assert_eq!(found(1, 65), (1, 2));
        assert_eq!(found(4, 65), (4, 5));
        assert_eq!(found(4, 3), (4, 3));
        assert_eq!(found(4, 0).1, 0, "it cannot be guarded");
    }

    #[test]
    fn auto_polls_where_a_cpu_is_left_for_it() {
        assert!(has_cpu(1) && !has_cpu(1 << 20));
        assert_eq!(polling(Poll::Auto, false), Polling::Never);
        assert_eq!(polling(Poll::Auto, true), Polling::BUSY);
        for has_cpu in [true, false] {
            assert_eq!(polling(Poll::On, has_cpu), Polling::Always);
            assert_eq!(polling(Poll::Off, has_cpu), Polling::Never);
        }
    }

    #[test]
    fn the_pages_of_all_devices_are_below_guest_memory() {
        let pages = config(MOST_CPUS, 1).pages() + SPARE_PAGES;
        let bytes = pages as u64 * HOST_PAGE * MAX_SLOTS as u64;
        assert!(COOKIE.0 + bytes <= 1 << 30, "{bytes:#x}");
    }
}
