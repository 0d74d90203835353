// SPDX-License-Identifier: Apache-2.0 OR BSD-3-Clause

//! The device and all memory that it was given, as one: memory is reused, freed or unpinned only once the device is quiet.
//!
//! The types enforce this rule:
//!
//! ```text
//! Quiet ── start ──► Starting ── RDY = 1 ──► Live ── disable ──► Stopping ── RDY = 0, or a reset ──► Quiet
//!                        └────────────── give up ──────────────────┘
//! ```
//!
//! Only [`Quiet`] gives the device or its memory back, and only it forgets what was outstanding. It is made where CC.EN is
//! 0 and nothing has been enabled yet, where RDY went from 1 to 0 after CC.EN had been cleared, and by a reset that succeeded. The
//! other three leak all of it when they are dropped: a leak is the safe end of a device that cannot be stopped.

use std::mem::ManuallyDrop;

use crate::device::{Device, DeviceError};
use crate::fault::Fault;
use crate::queue::Queues;
use crate::spec::registers::{ACQ, AQA, ASQ, CC, CSTS, Configuration, DeviceStatus};

/// A device with its queues.
#[derive(Debug)]
pub(crate) struct Parts<D: Device> {
    /// The device.
    pub device: D,
    /// Everything that it was given.
    pub queues: Queues<D::Block>,
}

impl<D: Device> Parts<D> {
    fn status(&self) -> DeviceStatus {
        DeviceStatus(self.device.read(CSTS))
    }

    /// Programs the monitor's admin queue, and enables the device.
    fn enable(&self) {
        let admin = &self.queues.admin;
        let sizes = u32::from(admin.depth() - 1);
        self.device.write(AQA, sizes | sizes << 16);
        write_address(&self.device, ASQ, admin.submission_address().0);
        write_address(&self.device, ACQ, admin.completion_address().0);
        self.device.write(CC, Configuration::ENABLED.0);
    }
}

fn write_address<D: Device>(device: &D, register: u32, address: u64) {
    device.write(register, crate::bits::low32(address));
    device.write(register + 4, crate::bits::high32(address));
}

/// A device that does no DMA.
#[derive(Debug)]
pub(crate) struct Quiet<D: Device>(Box<Parts<D>>);

/// A device that was enabled and is not ready yet.
#[derive(Debug)]
pub(crate) struct Starting<D: Device>(ManuallyDrop<Box<Parts<D>>>);

/// A device that works.
#[derive(Debug)]
pub(crate) struct Live<D: Device>(ManuallyDrop<Box<Parts<D>>>);

/// A device that was asked to stop.
#[derive(Debug)]
pub(crate) struct Stopping<D: Device> {
    parts: ManuallyDrop<Box<Parts<D>>>,
    /// It was ready when CC.EN was cleared. If not, RDY = 0 says nothing (Base 3.1.4.5, EN).
    was_ready: bool,
}

/// How far a start is.
#[derive(Debug)]
pub(crate) enum Started<D: Device> {
    /// RDY is 1.
    Ready(Live<D>),
    /// RDY is 0.
    NotYet(Starting<D>),
    /// It will not be.
    Failed(Stopping<D>, Fault),
}

/// Makes a device quiet that may be in any state: by its registers if it is disabled already, else by a reset.
///
/// # Errors
///
/// If it cannot be reset.
pub(crate) fn quieten<D: Device>(device: &mut D) -> Result<(), DeviceError> {
    let status = DeviceStatus(device.read(CSTS));
    let is_enabled = Configuration(device.read(CC)).is_enabled();
    if status.is_ready() || is_enabled {
        device.reset()?;
    }
    device.set_bus_master(false)
}

impl<D: Device> Quiet<D> {
    /// Brings a device that is [quiet](quieten) and memory for it together.
    pub fn new(device: D, queues: Queues<D::Block>) -> Self {
        Self(Box::new(Parts { device, queues }))
    }

    /// Begins to enable the device, with queues in which nothing is.
    pub fn start(self) -> Result<Starting<D>, (Self, DeviceError)> {
        let Self(mut parts) = self;
        if let Err(error) = parts.device.set_bus_master(true) {
            return Err((Self(parts), error));
        }
        parts.queues.restart();
        parts.enable();
        Ok(Starting(ManuallyDrop::new(parts)))
    }

    /// Resets the device.
    pub fn reset(mut self) -> Result<Self, (Self, DeviceError)> {
        match self.0.device.reset() {
            Ok(()) => Ok(self),
            Err(error) => Err((self, error)),
        }
    }

    /// The device, without its memory.
    pub fn into_device(self) -> D {
        self.0.device
    }
}

impl<D: Device> Starting<D> {
    /// Looks whether the device is ready.
    pub fn poll(self) -> Started<D> {
        let status = self.0.status();
        if status.is_gone() {
            return Started::Failed(self.give_up(), Fault::Gone);
        }
        if status.is_fatal() {
            return Started::Failed(self.give_up(), Fault::Fatal);
        }
        if status.is_ready() {
            return Started::Ready(Live(self.0));
        }
        Started::NotYet(self)
    }

    /// Stops the device, which has to be reset.
    pub fn give_up(self) -> Stopping<D> {
        self.0.device.write(CC, 0);
        Stopping {
            parts: self.0,
            was_ready: false,
        }
    }
}

impl<D: Device> Live<D> {
    /// The device and its queues, to work with.
    pub fn parts(&mut self) -> &mut Parts<D> {
        &mut self.0
    }

    /// CSTS.
    pub fn status(&self) -> DeviceStatus {
        self.0.status()
    }

    /// Asks the device to prepare for the end of power (CC.SHN). It goes on working.
    pub fn shut_down(&self, kind: u32) {
        let configuration = Configuration::ENABLED.with_shutdown(kind);
        self.0.device.write(CC, configuration.0);
    }

    /// Clears CC.EN.
    pub fn disable(self) -> Stopping<D> {
        let status = self.0.status();
        self.0.device.write(CC, 0);
        Stopping {
            was_ready: status.is_ready() && !status.is_gone(),
            parts: self.0,
        }
    }
}

impl<D: Device> Stopping<D> {
    /// Whether registers can show that the device has stopped.
    pub fn can_be_seen(&self) -> bool {
        self.was_ready
    }

    /// Looks whether the device has stopped.
    pub fn poll(self) -> Result<Quiet<D>, Self> {
        let status = self.parts.status();
        if !self.was_ready || status.is_gone() || status.is_ready() {
            return Err(self);
        }
        Ok(self.quiet())
    }

    /// Resets the device. If that fails too, its bus mastering is turned off and it is kept as it is.
    pub fn reset(mut self) -> Result<Quiet<D>, (Self, DeviceError)> {
        match self.parts.device.reset() {
            Ok(()) => Ok(self.quiet()),
            Err(error) => {
                if let Err(error) = self.parts.device.set_bus_master(false) {
                    log::warn!("bus mastering stays on: {error}");
                }
                Err((self, error))
            }
        }
    }

    fn quiet(self) -> Quiet<D> {
        let mut parts = ManuallyDrop::into_inner(self.parts);
        if let Err(error) = parts.device.set_bus_master(false) {
            log::warn!("bus mastering stays on: {error}");
        }
        Quiet(parts)
    }
}
