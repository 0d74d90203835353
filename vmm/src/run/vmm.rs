// SPDX-License-Identifier: Apache-2.0 OR BSD-3-Clause

//! A running microVM.

use std::sync::{Arc, Weak};

use address::Bdf;
use devices::mediate::Statistics;

use crate::config::ValidConfig;
use crate::confine::Confinement;
use crate::error::Error;
use crate::error::explain::ProcessError;
use crate::run::console::{Console, GuestSerial};
use crate::run::event_loop::{self, RunLimit, Signals, Watched};
use crate::run::exit::{ExitReason, ExitReceiver, ExitSender};
use crate::run::heartbeat::Heartbeat;
use crate::run::machine_info::MachineInfo;
use crate::run::power_button::{PowerButton, Press};
use crate::run::timings::Timings;
use crate::stages::{self, Harness};
use crate::teardown::Resources;

/// A running microVM. Dropping it ends the guest and gives everything back.
#[derive(Debug)]
pub struct Vmm {
    pub(crate) info: MachineInfo,
    pub(crate) serial: Arc<GuestSerial>,
    pub(crate) signals: Signals,
    pub(crate) power_button: Arc<PowerButton>,
    pub(crate) exit_sender: ExitSender,
    pub(crate) exits: ExitReceiver,
    pub(crate) resources: Resources,
}

/// A hold on a running microVM. Clones are the same microVM's.
#[derive(Clone, Debug)]
pub struct Handle {
    power_button: Weak<PowerButton>,
    exit_sender: ExitSender,
}

impl Handle {
    /// Asks the guest to power itself off. A guest that has ended does not listen.
    ///
    /// # Errors
    /// [`Error::Irq`]
    pub fn press_power_button(&self) -> Result<Press, Error> {
        match self.power_button.upgrade() {
            Some(button) => Ok(button.press()?),
            None => Ok(Press::Unheard),
        }
    }

    /// Stops the guest: [`Vmm::wait`] returns `reason`, unless the guest has ended already.
    pub fn stop(&self, reason: ExitReason) {
        self.exit_sender.send(reason);
    }
}

/// What is left of a microVM.
#[derive(Debug)]
pub struct Remains {
    /// Where things were in it.
    pub info: MachineInfo,
    /// It was asked to power itself off.
    pub was_asked: bool,
    /// What the monitor did with the transfers of mediated devices.
    pub mediated: Vec<(Bdf, Statistics)>,
    /// Whether everything was released.
    pub torn_down: Result<(), Error>,
}

impl Vmm {
    /// Starts the guest of `config`, with `console` at its serial port and its threads in `confinement`.
    ///
    /// # Errors
    /// [`Error`]; everything has been released by then.
    pub fn start(
        config: &ValidConfig,
        harness: Harness<'_>,
        console: &mut Console,
        confinement: &Confinement,
        timings: &mut Timings,
    ) -> Result<Self, Error> {
        stages::start(config, harness, console, confinement, timings)
    }

    /// Where things are in the machine.
    #[must_use]
    pub fn info(&self) -> &MachineInfo {
        &self.info
    }

    /// A hold on it for other threads, which may outlive it.
    #[must_use]
    pub fn handle(&self) -> Handle {
        Handle {
            power_button: Arc::downgrade(&self.power_button),
            exit_sender: self.exit_sender.clone(),
        }
    }

    /// Waits until the guest ends and returns why. Meanwhile there are the reports of `heartbeat`.
    ///
    /// # Errors
    /// [`ProcessError`] if waiting itself fails.
    pub fn wait(
        &self,
        console: &mut Console,
        limit: RunLimit,
        heartbeat: Option<Heartbeat<'_>>,
    ) -> Result<ExitReason, ProcessError> {
        let watched = Watched {
            serial: &self.serial,
            signals: &self.signals,
            power_button: &self.power_button,
            watches: &self.resources.watches,
            exits: &self.exits,
            exit: &self.exit_sender,
        };
        event_loop::run(&watched, console, limit, heartbeat)
    }

    /// Ends the guest, if it still runs, and gives everything back.
    pub fn end(mut self) -> Remains {
        let counters = self.resources.mediated.clone();
        let was_asked = self.power_button.was_pressed();
        // It holds the VM, which goes in one step if nothing does.
        drop(self.power_button);
        let torn_down = self.resources.tear_down();
        // By now no vCPU adds to them.
        let mediated = counters.into_iter().map(|(bdf, each)| (bdf, each.read()));
        Remains {
            info: self.info,
            was_asked,
            mediated: mediated.collect(),
            torn_down,
        }
    }
}
