//! A running microVM, and how it is taken apart.

use std::fmt;
use std::sync::Arc;

use address::Bdf;
use devices::mediate::Counters;
use devices::pci::PciRoot;
use kvm_ioctls::VcpuFd;
use vm_device::device_manager::IoManager;

use crate::bound::Held;
use crate::console::GuestSerial;
use crate::description::Description;
use crate::error::{Error, process};
use crate::event_loop::Signals;
use crate::exit::{ExitReceiver, ExitSender};
use crate::kvm::vcpu::VcpuThread;
use crate::kvm::vm::Memslot;
use crate::memory::guest::GuestRam;
use crate::memory::moved;
use crate::power_button::PowerButton;
use crate::software::{EngineThread, SoftwareMachine};
use crate::watch::DeviceWatch;

/// Everything that a guest runs on. [`tear_down`](Self::tear_down) takes it apart in the only
/// order that is safe; dropping does the same.
pub struct Machine {
    pub(crate) description: Description,
    pub(crate) vcpus: Vec<VcpuThread>,
    pub(crate) serial: Arc<GuestSerial>,
    pub(crate) signals: Signals,
    pub(crate) power_button: PowerButton,
    pub(crate) exit_sender: ExitSender,
    pub(crate) exits: ExitReceiver,
    pub(crate) watches: Vec<DeviceWatch>,
    pub(crate) bus: Option<Arc<IoManager>>,
    pub(crate) pci: Option<Arc<PciRoot>>,
    pub(crate) held: Held,
    pub(crate) software: Option<SoftwareMachine>,
    pub(crate) engine: Option<EngineThread>,
    pub(crate) mediated: Vec<(Bdf, Counters)>,
    pub(crate) ram_slots: Vec<Memslot>,
    pub(crate) ram: Option<GuestRam>,
}

impl fmt::Debug for Machine {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.debug_struct("Machine")
            .field("held", &self.held)
            .field("ram", &self.ram)
            .finish_non_exhaustive()
    }
}

impl Machine {
    /// Compares where the pages of guest memory are with the table of them, if devices were given
    /// addresses by it.
    ///
    /// # Errors
    /// [`Error::Moved`] for the first page that is elsewhere.
    pub(crate) fn check_pages(&self) -> Result<(), Error> {
        match (&self.held.noiommu, &self.ram) {
            (Some(_), Some(ram)) => moved::check(ram, &self.description.ram),
            _ => Ok(()),
        }
    }

    /// Lets `vcpus` run, the first of them first.
    ///
    /// # Errors
    /// [`Error::Process`]; those that run by then go on until [`tear_down`](Self::tear_down).
    pub(crate) fn start(&mut self, vcpus: Vec<VcpuFd>) -> Result<(), Error> {
        for (index, vcpu) in (0..).zip(vcpus) {
            // Nothing else holds the bus, so that an error here closes the devices behind it.
            let Some(bus) = self.bus.clone() else { break };
            let thread = VcpuThread::spawn(index, vcpu, bus, self.exit_sender.clone());
            self.vcpus.push(thread.map_err(process("start a vCPU"))?);
        }
        Ok(())
    }

    /// Ends the guest and gives everything back: vCPUs, then the devices' DMA, then their
    /// interrupts and BARs, then the devices, then guest memory. Nothing to do the second time.
    ///
    /// # Errors
    /// The first thing that went wrong; the later steps are taken all the same, except that
    /// memory stays pinned as long as there is no evidence that each device has ended its DMA
    /// ([`Error::MemoryKept`], which outranks all others).
    pub fn tear_down(&mut self) -> Result<(), Error> {
        let mut first_error = None;
        let mut note = |result: Result<(), Error>| {
            let Err(error) = result else { return };
            let other = match (&first_error, &error) {
                (None, _) | (Some(_), Error::MemoryKept { .. }) => first_error.replace(error),
                (Some(_), _) => Some(error),
            };
            if let Some(other) = other {
                log::error!("{}", other.chain());
            }
        };

        // Nobody can turn bus mastering on again after this.
        for vcpu in &self.vcpus {
            vcpu.stop();
        }
        for vcpu in self.vcpus.drain(..) {
            vcpu.join();
        }
        if let Some(pci) = &self.pci {
            pci.stop();
        }
        if let Some(engine) = self.engine.take() {
            engine.stop();
        }
        for error in self.held.quiesce() {
            note(Err(error));
        }
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
        note(self.check_pages());
        // The functions turn their interrupts off and take their memslots and mapped BARs away,
        // each of which would keep its device open.
        self.watches.clear();
        self.bus = None;
        self.pci = None;
        for error in self.held.release() {
            note(Err(error));
        }
        self.ram_slots.clear();
        self.ram = None;
        self.software = None;
        first_error.map_or(Ok(()), Err)
    }
}

impl Drop for Machine {
    fn drop(&mut self) {
        if let Err(error) = self.tear_down() {
            log::error!("The machine was not taken apart cleanly: {}", error.chain());
        }
    }
}
