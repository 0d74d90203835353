// SPDX-License-Identifier: Apache-2.0 OR BSD-3-Clause

//! How a guest's resources are released: the only order, for a run, for a plan and for every error.
//!
//! 1. The guest stops: no vCPU can program a device any more, nor a thread that does so for the guest, and emulated
//!    functions do no work.
//! 2. *Quiesce*: all DMA of the devices ends.
//! 3. The pages of guest memory are compared with the addresses that devices were given.
//! 4. Interrupts, BARs and notices are disconnected, each of which would keep its device open.
//! 5. *Close* the devices. Meanwhile the memslots go, and with them the VM: the kernel waits for either.
//! 6. *Verify* that each of them is quiet.
//! 7. *Unpin* the memory.
//! 8. Mappings go, and memslots if there was no device.
//!
//! Each step is taken even if an earlier one failed, except that memory stays pinned, and is left to its keeper, as
//! long as there is no evidence that each device has ended its DMA.

use std::fmt;
use std::mem;
use std::sync::{Arc, Mutex, PoisonError};

use address::Bdf;
use devices::mediate::Counters;
use devices::pci::PciRoot;
use iommufd_backend::meanwhile;
use vm_device::device_manager::IoManager;

use crate::bus::worker::Worker;
use crate::error::Error;
use crate::handover::PageView;
use crate::kvm::vcpu::VcpuThread;
use crate::kvm::vm::{Memslot, delete_all};
use crate::memory::backing;
use crate::memory::guest::GuestRam;
use crate::memory::moved;
use crate::memory::table::RamTable;
use crate::passthrough::assigned::{AddressSpaces, Assigned};
use crate::passthrough::guarded::GuardedController;
use crate::run::device_notices::DeviceWatch;

/// The steps.
trait Steps {
    fn stop(&mut self);
    fn quiesce(&mut self) -> Vec<Error>;
    fn check_pages(&mut self) -> Result<(), Error>;
    fn disconnect(&mut self);
    fn close(&mut self) -> Result<(), Error>;
    fn release_iommu(&mut self) -> Result<(), Error>;
    fn verify(&mut self) -> Result<(), Error>;
    fn unpin(&mut self) -> Result<(), Error>;
    fn unmap(&mut self);
}

/// Takes all steps. Returns the first error, or that memory is kept, which outranks all others; the rest is logged.
fn tear_down(steps: &mut impl Steps) -> Result<(), Error> {
    let mut errors = Errors::default();
    steps.stop();
    errors.extend(steps.quiesce());
    errors.extend(steps.check_pages().err());
    steps.disconnect();
    match steps.close() {
        Ok(()) => {
            errors.extend(steps.release_iommu().err());
            match steps.verify() {
                Ok(()) => errors.extend(steps.unpin().err()),
                Err(kept) => errors.extend([kept]),
            }
        }
        Err(open) => errors.extend([open]),
    }
    steps.unmap();
    errors.0.map_or(Ok(()), Err)
}

/// The error to report.
#[derive(Default)]
struct Errors(Option<Error>);

impl Extend<Error> for Errors {
    fn extend<I: IntoIterator<Item = Error>>(&mut self, errors: I) {
        for error in errors {
            let other = match (&self.0, error.keeps_memory()) {
                (Some(_), false) => Some(error),
                _ => self.0.replace(error),
            };
            if let Some(other) = other {
                log::error!("{}", other.chain());
            }
        }
    }
}

/// Everything of the host that a guest has so far. Dropping it gives it back, in the order of this module.
pub(crate) struct Resources {
    /// Threads that run the guest.
    pub vcpus: Vec<VcpuThread>,
    /// What works for emulated functions.
    pub workers: Vec<Box<dyn Worker>>,
    /// What the guest's accesses reach.
    pub bus: Option<Arc<IoManager>>,
    /// The functions on the guest's bus.
    pub pci: Option<Arc<PciRoot>>,
    /// Notices of the devices.
    pub watches: Vec<DeviceWatch>,
    /// The controllers that are guarded.
    pub guarded: Vec<GuardedController>,
    /// What mediated devices count.
    pub mediated: Vec<(Bdf, Counters)>,
    /// The devices, and what they are attached to.
    pub assigned: Assigned,
    /// The addresses of guest memory that devices use.
    pub table: Option<Arc<RamTable>>,
    /// Bytes in each of its pages, all of which are in one place.
    pub page_size: u64,
    /// Who shows where its pages are.
    pub view: PageView,
    /// Guest memory in KVM.
    pub memslots: Vec<Memslot>,
    /// Guest memory in this process.
    pub ram: GuestRam,
    is_torn_down: bool,
}

impl fmt::Debug for Resources {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.debug_struct("Resources")
            .field("assigned", &self.assigned)
            .field("ram", &self.ram)
            .finish_non_exhaustive()
    }
}

impl Resources {
    /// Devices, and nothing else yet.
    pub fn new(assigned: Assigned) -> Self {
        Self {
            vcpus: Vec::new(),
            workers: Vec::new(),
            bus: None,
            pci: None,
            watches: Vec::new(),
            guarded: Vec::new(),
            mediated: Vec::new(),
            assigned,
            table: None,
            page_size: backing::PAGE,
            view: PageView::default(),
            memslots: Vec::new(),
            ram: GuestRam::default(),
            is_torn_down: false,
        }
    }

    /// Gives everything back. There is nothing to do the second time.
    ///
    /// # Errors
    /// The first thing that went wrong, or that memory is [kept](Error::keeps_memory).
    pub fn tear_down(&mut self) -> Result<(), Error> {
        if self.is_torn_down {
            return Ok(());
        }
        self.is_torn_down = true;
        tear_down(self)
    }

    /// Gives everything back because of `error`, and returns the error to report: that memory is kept outranks it.
    pub fn give_back(mut self, error: Error) -> Error {
        let (reported, logged) = match self.tear_down() {
            Ok(()) => return error,
            Err(kept) if kept.keeps_memory() => (kept, error),
            Err(other) => (error, other),
        };
        log::error!("{}", logged.chain());
        reported
    }

    /// Has nothing to do with any of it any more: another process has all of it, too.
    pub fn part(mut self) {
        self.is_torn_down = true;
    }

    /// Compares where the pages of guest memory are with the table of them, if devices were given addresses by it. The first
    /// call after a handover asks the [helper](PageView) for the addresses, which lets the helper end.
    ///
    /// # Errors
    /// [`LayoutError::Moved`](crate::memory::LayoutError::Moved) for the first page that is elsewhere.
    pub fn check_pages(&mut self) -> Result<(), Error> {
        // Who handed the guest over waits for that, even without devices.
        let is_asked = matches!(self.view, PageView::Helper { .. });
        let has_devices = !matches!(self.assigned.spaces, AddressSpaces::None);
        if self.ram.regions().is_empty() || !(is_asked || has_devices) {
            return Ok(());
        }
        self.view.resolve();
        match (&self.table, self.assigned.spaces.addresses()) {
            (Some(table), Some(source)) => {
                let shown = (&self.view, source);
                Ok(moved::check(&self.ram, table, self.page_size, shown)?)
            }
            _ => Ok(()),
        }
    }
}

impl Steps for Resources {
    fn stop(&mut self) {
        trace::note("stop");
        for vcpu in &mut self.vcpus {
            vcpu.stop();
        }
        for vcpu in self.vcpus.drain(..) {
            vcpu.join();
        }
        if let Some(pci) = &self.pci {
            pci.stop();
        }
        // Their threads end, and with them what the guest asked for.
        self.guarded.clear();
        for worker in self.workers.drain(..) {
            worker.stop();
        }
    }

    fn quiesce(&mut self) -> Vec<Error> {
        trace::note("quiesce");
        let errors = self.assigned.quiesce().into_iter().map(Error::from);
        for (bdf, counters) in self.mediated.drain(..) {
            let done = counters.read();
            log::info!(
                "{bdf}: mediated transfers: {} started, {} refused, {} while busy, {} failed; \
                 {} accesses ignored",
                done.started,
                done.refused,
                done.busy,
                done.failed,
                done.ignored
            );
        }
        errors.collect()
    }

    fn check_pages(&mut self) -> Result<(), Error> {
        trace::note("check_pages");
        Self::check_pages(self)
    }

    fn disconnect(&mut self) {
        trace::note("disconnect");
        self.watches.clear();
        self.bus = None;
        self.pci = None;
    }

    fn close(&mut self) -> Result<(), Error> {
        trace::note("close");
        if self.assigned.devices.is_empty() || self.memslots.is_empty() {
            return Ok(self.assigned.close()?);
        }
        let memslots = Mutex::new(mem::take(&mut self.memslots));
        let delete = || {
            let mut memslots = memslots.lock().unwrap_or_else(PoisonError::into_inner);
            delete_all(mem::take(&mut memslots));
        };
        Ok(meanwhile(delete, || self.assigned.close())?)
    }

    fn release_iommu(&mut self) -> Result<(), Error> {
        trace::note("release_iommu");
        Ok(self.assigned.release_iommu()?)
    }

    fn verify(&mut self) -> Result<(), Error> {
        trace::note("verify");
        Ok(self.assigned.verify()?)
    }

    fn unpin(&mut self) -> Result<(), Error> {
        trace::note("unpin");
        Ok(self.assigned.unpin()?)
    }

    fn unmap(&mut self) {
        trace::note("unmap");
        delete_all(mem::take(&mut self.memslots));
        self.ram = GuestRam::default();
        self.table = None;
    }
}

impl Drop for Resources {
    fn drop(&mut self) {
        if let Err(error) = self.tear_down() {
            log::error!("Cannot release all resources: {}", error.chain());
        }
    }
}

/// The steps that this thread has taken, for tests.
#[cfg(test)]
pub(crate) mod trace {
    use std::cell::RefCell;

    /// All of them, in their order.
    pub const ALL: [&str; 9] = [
        "stop",
        "quiesce",
        "check_pages",
        "disconnect",
        "close",
        "release_iommu",
        "verify",
        "unpin",
        "unmap",
    ];

    thread_local! {
        static TAKEN: RefCell<Vec<&'static str>> = const { RefCell::new(Vec::new()) };
    }

    pub fn note(step: &'static str) {
        TAKEN.with_borrow_mut(|taken| taken.push(step));
    }

    /// Those since the last call.
    pub fn take() -> Vec<&'static str> {
        TAKEN.take()
    }
}

/// Notes a step.
#[cfg(not(test))]
mod trace {
    pub fn note(step: &'static str) {
        log::debug!("teardown: {step}");
    }
}

#[cfg(test)]
mod tests {
    use super::trace::ALL;
    use super::*;
    use crate::error::explain::process;
    use crate::passthrough::assigned::KeepError;

    /// Notes the steps, of which one fails.
    #[derive(Default)]
    struct Recorder {
        taken: Vec<&'static str>,
        failing: Vec<&'static str>,
    }

    impl Recorder {
        fn take(&mut self, step: &'static str) -> Result<(), Error> {
            self.taken.push(step);
            if !self.failing.contains(&step) {
                return Ok(());
            }
            Err(match step {
                "verify" => KeepError::MemoryKept {
                    bdf: "01:00.0".parse().unwrap(),
                    process: 7,
                    status: keeper::Status::default(),
                }
                .into(),
                operation => process(operation)(std::io::Error::other("it was to fail")).into(),
            })
        }
    }

    impl Steps for Recorder {
        fn stop(&mut self) {
            self.take("stop").unwrap();
        }

        fn quiesce(&mut self) -> Vec<Error> {
            self.take("quiesce").err().into_iter().collect()
        }

        fn check_pages(&mut self) -> Result<(), Error> {
            self.take("check_pages")
        }

        fn disconnect(&mut self) {
            self.take("disconnect").unwrap();
        }

        fn close(&mut self) -> Result<(), Error> {
            self.take("close")
        }

        fn release_iommu(&mut self) -> Result<(), Error> {
            self.take("release_iommu")
        }

        fn verify(&mut self) -> Result<(), Error> {
            self.take("verify")
        }

        fn unpin(&mut self) -> Result<(), Error> {
            self.take("unpin")
        }

        fn unmap(&mut self) {
            self.take("unmap").unwrap();
        }
    }

    fn run(failing: &[&'static str]) -> (Vec<&'static str>, Result<(), Error>) {
        let mut recorder = Recorder {
            failing: failing.to_vec(),
            ..Recorder::default()
        };
        let result = tear_down(&mut recorder);
        (recorder.taken, result)
    }

    #[test]
    fn the_order_is_the_same_whichever_step_fails() {
        assert_eq!(run(&[]).0, ALL);
        for failing in ["quiesce", "check_pages", "release_iommu", "unpin"] {
            let (taken, result) = run(&[failing]);
            assert_eq!(taken, ALL, "{failing}");
            let text = result.unwrap_err().to_string();
            assert_eq!(text, format!("Cannot {failing}"));
        }
    }

    #[test]
    fn memory_stays_pinned_without_evidence() {
        let without = |steps: &[&str]| -> Vec<_> {
            let left = ALL.iter().filter(|step| !steps.contains(step));
            left.copied().collect()
        };
        assert_eq!(run(&["verify"]).0, without(&["unpin"]));
        assert_eq!(
            run(&["close"]).0,
            without(&["release_iommu", "verify", "unpin"])
        );
    }

    #[test]
    fn that_memory_is_kept_outranks_what_came_first() {
        let id = |failing: &[&'static str]| run(failing).1.unwrap_err().id();
        assert_eq!(id(&["quiesce", "verify"]), "memory-kept");
        let first = run(&["quiesce", "check_pages", "unpin"]).1.unwrap_err();
        assert_eq!(first.to_string(), "Cannot quiesce");
    }
}
