// SPDX-License-Identifier: Apache-2.0 OR BSD-3-Clause

//! The controller: the guest's registers and queues on one side, the device on the other.
//!
//! One thread owns a [`Controller`]. It calls [`configure`](Controller::configure) when the guest has stored to CC, and
//! [`service`](Controller::service) when a doorbell was written, the device has signalled, or the time that the last call
//! returned is over; while there is work, again and again. Nothing here waits.

mod admin;
mod answers;
mod events;
mod facts;
mod messages;
mod phase;
mod running;
mod script;
mod session;
mod stop;

use std::time::Duration;

use crate::device::{Device, DeviceError};
use crate::fault::{Fault, Unsuitable};
use crate::guest::Machine;
use crate::limits::{MAX_DEPTH, MAX_MDTS, SMALL_DEPTH};
use crate::link::{Quiet, quieten};
use crate::namespaces::Namespaces;
use crate::queue::{Plan, Queues, needed_pages};
use crate::queue_set::MAX_QUEUES;
use crate::registers::{Change, Control, Identity, Shown};
use crate::spec::registers::{
    CAP, CMBMSC, CRTO, Capabilities, PMRCTL, PMRMSCL, PMRMSCU, VS, Version,
};

pub use messages::Messages;
use phase::Phase;
use session::Session;

/// What a controller is made for.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Config {
    /// I/O queue pairs that the guest may have; the device may give fewer. One for each vCPU is what drivers want.
    pub queues: u16,
    /// Interrupt vectors of the guest's MSI-X table, not more than the device's.
    pub vectors: u16,
    /// The largest transfer, as MDTS: each queue has memory for as many lists of it as it has entries. 1 to
    /// [`MAX_MDTS`]; 0, which would offer transfers of any length, is taken as 1.
    pub mdts: u8,
}

impl Config {
    /// Most pages that [`Controller::attach`] asks its device for. Those of a queue have to be contiguous, 4 of them, or
    /// queues will have fewer entries.
    #[must_use]
    pub fn pages(&self) -> usize {
        needed_pages(self.plan(MAX_DEPTH))
    }

    fn plan(&self, depth: u16) -> Plan {
        Plan {
            queues: self.queues.clamp(1, MAX_QUEUES),
            depth,
            mdts: self.mdts.clamp(1, MAX_MDTS),
        }
    }
}

/// A device that cannot be attached.
#[derive(Debug, thiserror::Error)]
pub enum AttachError {
    /// It cannot be guarded.
    #[error(transparent)]
    Unsuitable(#[from] Unsuitable),
    /// It cannot be made quiet. The device is not dropped: it may be writing to memory.
    #[error("the device cannot be stopped")]
    Running(#[source] DeviceError),
}

/// What a call of [`service`](Controller::service) leaves to do.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Next {
    /// Something was done: there may be more at once.
    pub is_busy: bool,
    /// Without a signal, the next call is due after this; `None` if only a signal can bring work.
    pub within: Option<Duration>,
    /// I/O submission queues are in service: the guest may store to their doorbells.
    pub has_queues: bool,
}

/// What stays the same as long as a device is attached.
#[derive(Clone, Copy, Debug)]
struct Settings {
    plan: Plan,
    vectors: u16,
    cap: Capabilities,
    version: Version,
    identity: Identity,
    /// How long the device may take to become ready and to stop.
    timeout: Duration,
}

/// A guest's controller.
#[derive(Debug)]
pub struct Controller<D: Device, M> {
    machine: M,
    settings: Settings,
    phase: Phase<D>,
    session: Session,
    control: Control,
    /// CC.EN was cleared, and the device is not quiet yet.
    is_stop_wanted: bool,
    shown: Shown,
    fault: Option<Fault>,
    messages: Messages,
}

impl<D: Device, M: Machine> Controller<D, M> {
    /// Puts the monitor between a device and its guest, with memory for all queues. What survives resets is cleared: a
    /// controller memory buffer or persistent memory region in the device's address space. Where there
    /// are no 16 KiB in one piece, queues have at most 64 entries.
    ///
    /// # Errors
    ///
    /// [`AttachError`]. If the device could not be stopped it is leaked, with what it owns.
    pub fn attach(device: D, machine: M, config: Config) -> Result<Self, AttachError> {
        let mut device = std::mem::ManuallyDrop::new(device);
        let cap = read_cap(&*device);
        let version = Version(device.read(VS));
        if let Err(unsuitable) = check(cap, version) {
            // The device was not touched, so it is dropped and not leaked.
            drop(std::mem::ManuallyDrop::into_inner(device));
            return Err(unsuitable.into());
        }
        quieten(&mut *device).map_err(AttachError::Running)?;
        let mut device = std::mem::ManuallyDrop::into_inner(device);
        close_buffers(&device, cap);
        let (plan, queues) = allocate(&mut device, cap, config)?;
        let ready_timeouts = device.read(CRTO);
        let identity = Identity::new(cap, version, ready_timeouts, plan.depth);
        let settings = Settings {
            plan,
            vectors: config.vectors,
            cap,
            version,
            identity,
            timeout: timeout(cap, ready_timeouts),
        };
        Ok(Self {
            machine,
            session: settings.session(Duration::ZERO),
            settings,
            phase: Phase::Off(Quiet::new(device, queues)),
            control: Control::default(),
            is_stop_wanted: false,
            shown: Shown::default(),
            fault: None,
            messages: Messages::default(),
        })
    }

    /// The guest's read-only registers.
    #[must_use]
    pub fn identity(&self) -> Identity {
        self.settings.identity
    }

    /// I/O queue pairs that fit into the allocated memory.
    #[must_use]
    pub fn queues(&self) -> u16 {
        self.settings.plan.queues
    }

    /// The guest.
    #[must_use]
    pub fn machine(&self) -> &M {
        &self.machine
    }

    /// What CSTS shows. It changes in [`service`](Self::service) and [`reset`](Self::reset) only.
    #[must_use]
    pub fn shown(&self) -> Shown {
        self.shown
    }

    /// Whether the device does no DMA and has forgotten all that it was given.
    #[must_use]
    pub fn is_quiet(&self) -> bool {
        matches!(self.phase, Phase::Off(_))
    }

    /// Why CSTS shows a fatal status, if it does.
    #[must_use]
    pub fn fault(&self) -> Option<Fault> {
        self.fault
    }

    /// The namespaces that the guest sees, and those that it does not, since the controller was last enabled.
    #[must_use]
    pub fn namespaces(&self) -> &Namespaces {
        &self.session.namespaces
    }

    /// The guest has stored to CC. It has effect with the next [`service`](Self::service).
    pub fn configure(&mut self, change: Change) {
        self.control = change.control;
        self.is_stop_wanted |= change.was_disabled || !change.control.configuration.is_enabled();
    }

    /// Resets the function, as the guest asked: FLR, or a return from D3hot. The registers are reset apart from this.
    ///
    /// # Errors
    ///
    /// If the device cannot be reset. It is kept as it is then, with all its memory, and a fatal status is shown.
    pub fn reset(&mut self) -> Result<(), DeviceError> {
        self.control = Control::default();
        self.is_stop_wanted = false;
        self.fault = None;
        self.shown = Shown::default();
        let phase = std::mem::replace(&mut self.phase, Phase::Moving);
        let (phase, result) = phase.reset();
        self.phase = phase;
        if result.is_err() {
            self.shown.is_fatal = true;
        }
        result
    }

    /// Takes the monitor out again: the end of the guest. The device is quiet when it is returned, and its memory has been
    /// dropped.
    ///
    /// # Errors
    ///
    /// If the device cannot be stopped. It is leaked then, with all its memory and what it owns, so that nothing that it may
    /// still write to is used for anything else.
    pub fn detach(self) -> Result<D, DeviceError> {
        match self.phase {
            Phase::Off(quiet) => Ok(quiet.into_device()),
            phase => match phase.reset() {
                (Phase::Off(quiet), Ok(())) => Ok(quiet.into_device()),
                (phase, Err(error)) => {
                    drop(phase);
                    Err(error)
                }
                (phase, Ok(())) => {
                    drop(phase);
                    Err(DeviceError("the device was lost".into()))
                }
            },
        }
    }
}

impl Settings {
    /// A session that begins at `now`.
    fn session(&self, now: Duration) -> Session {
        let script = script::Script::first(self.cap, self.version, self.plan.queues);
        Session::new(script, now)
    }
}

fn read_cap<D: Device>(device: &D) -> Capabilities {
    Capabilities(crate::bits::join32(device.read(CAP), device.read(CAP + 4)))
}

/// Whether a device can be guarded, by its registers CAP and VS: what [`Controller::attach`] refuses before it touches it.
///
/// # Errors
/// [`Unsuitable`]
pub fn check(cap: Capabilities, version: Version) -> Result<(), Unsuitable> {
    if cap.0 == u64::MAX {
        return Err(Unsuitable::Gone);
    }
    if !cap.has_nvm() {
        return Err(Unsuitable::NoNvm(cap.0));
    }
    if cap.least_page() > 0 {
        return Err(Unsuitable::PageSize(12 + cap.least_page()));
    }
    if cap.last_entry() == 0 {
        return Err(Unsuitable::QueueSize(cap.0));
    }
    if version < Version::V1_1 {
        return Err(Unsuitable::Version(version.0));
    }
    Ok(())
}

/// Takes the device's own memory out of the address space, if it was left there. CMBMSC, PMRCTL and PMRMSC survive a reset
/// (Base 3.7.2).
fn close_buffers<D: Device>(device: &D, cap: Capabilities) {
    if cap.has_cmb() {
        device.write(CMBMSC, 0);
        device.write(CMBMSC + 4, 0);
    }
    if cap.has_pmr() {
        device.write(PMRCTL, 0);
        device.write(PMRMSCL, 0);
        device.write(PMRMSCU, 0);
    }
}

/// Memory for queues of the most entries, or of fewer.
fn allocate<D: Device>(
    device: &mut D,
    cap: Capabilities,
    config: Config,
) -> Result<(Plan, Queues<D::Block>), Unsuitable> {
    let most = cap.last_entry().saturating_add(1);
    for depth in [MAX_DEPTH, SMALL_DEPTH] {
        let plan = config.plan(depth.min(most));
        if let Some(memory) = Queues::allocate(device, plan) {
            return Ok((plan, memory));
        }
    }
    Err(Unsuitable::Memory(config.plan(SMALL_DEPTH).queues))
}

/// CAP.TO, or CRTO.CRWMT where that is longer: both in units of 500 ms.
fn timeout(cap: Capabilities, ready_timeouts: u32) -> Duration {
    let with_media = match cap.0 >> 59 & 1 {
        0 => 0,
        _ => crate::bits::low16(ready_timeouts),
    };
    let units = u16::from(cap.timeout()).max(with_media).max(1);
    Duration::from_millis(500 * u64::from(units))
}
