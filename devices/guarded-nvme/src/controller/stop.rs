// SPDX-License-Identifier: Apache-2.0 OR BSD-3-Clause

//! How a controller is disabled.

use std::time::Duration;

use super::Controller;
use super::admin::Desk;
use super::phase::{POLL, Phase, Step};
use crate::device::Device;
use crate::fault::Fault;
use crate::guest::Machine;
use crate::link::{Live, Parts, Stopping};

/// How long the device may complete what it has before CC.EN is cleared.
const DRAIN: Duration = Duration::from_secs(1);

impl<D: Device, M: Machine> Controller<D, M> {
    /// Gives the device time to complete its commands before it is disabled. Clearing CC.EN with commands outstanding is
    /// allowed (Base 3.7.2), but seldom done, and controllers have faults there: QEMU 10.0 frees queues whose commands still
    /// run.
    pub(super) fn drain(live: Live<D>, now: Duration) -> Step<D> {
        Step::again(Phase::Draining(live, now + DRAIN))
    }

    /// Takes completions and submits nothing. The guest sees RDY = 1, so it expects completions still.
    pub(super) fn draining(
        &mut self,
        mut live: Live<D>,
        now: Duration,
        deadline: Duration,
    ) -> Step<D> {
        match self.take_completions(&mut live) {
            Err(fault) => self.fail(live, fault),
            Ok(()) if live.parts().queues.are_idle() || now >= deadline => {
                self.stop(live.disable(), now)
            }
            Ok(()) => Step::wait(Phase::Draining(live, deadline), POLL),
        }
    }

    fn take_completions(&mut self, live: &mut Live<D>) -> Result<(), Fault> {
        let status = live.status();
        if status.is_gone() {
            return Err(Fault::Gone);
        }
        if status.is_fatal() {
            return Err(Fault::Fatal);
        }
        let mut desk = Desk {
            parts: live.parts(),
            session: &mut self.session,
            machine: &self.machine,
        };
        desk.finish()?;
        let Parts { device, queues } = &mut *desk.parts;
        queues.io.complete(device, &self.machine)?;
        queues.admin.signal(&self.machine);
        queues.io.signal(&self.machine);
        Ok(())
    }

    /// Stops the device at once; the guest sees a fatal status until it disables its controller.
    pub(super) fn fail(&mut self, live: Live<D>, fault: Fault) -> Step<D> {
        self.show_fault(fault);
        Step::again(Phase::Failed(live.disable()))
    }

    /// Waits for a device that was disabled.
    pub(super) fn stop(&mut self, stopping: Stopping<D>, now: Duration) -> Step<D> {
        let deadline = now + self.settings.timeout;
        Step::again(Phase::Stopping(stopping, deadline))
    }

    pub(super) fn stopping(
        &mut self,
        stopping: Stopping<D>,
        now: Duration,
        deadline: Duration,
    ) -> Step<D> {
        let is_late = now >= deadline || !stopping.can_be_seen();
        match stopping.poll() {
            Ok(quiet) => Step::again(Phase::Off(quiet)),
            Err(stopping) if !is_late => Step::wait(Phase::Stopping(stopping, deadline), POLL),
            Err(stopping) => match stopping.reset() {
                Ok(quiet) => Step::again(Phase::Off(quiet)),
                Err((stopping, error)) => {
                    log::error!("the device can be neither stopped nor reset: {error}");
                    self.shown.is_fatal = true;
                    Step::rest(Phase::Dead(stopping))
                }
            },
        }
    }
}
