// SPDX-License-Identifier: Apache-2.0 OR BSD-3-Clause

//! How a controller is enabled and reset; [`stop`](super::stop) disables it.

use std::time::Duration;

use super::admin::Desk;
use super::script::Script;
use super::{Controller, Next};
use crate::check::queues::is_memory;
use crate::device::{Device, DeviceError};
use crate::fault::Fault;
use crate::guest::{Access, Doorbell, Machine};
use crate::link::{Live, Quiet, Started, Starting, Stopping};
use crate::queue::{GuestCompletions, GuestSubmissions};
use crate::registers::{Control, Shown};
use crate::spec::registers::SHUTDOWN_COMPLETE;
use crate::spec::{COMPLETION_BYTES, ENTRY_BYTES, PAGE};

use address::Gpa;

/// How long to wait before the device's registers are read again.
pub(super) const POLL: Duration = Duration::from_millis(1);
/// How long the device may take for a command of the monitor's.
pub(super) const OWN_TIMEOUT: Duration = Duration::from_secs(10);

/// Where a controller is.
#[derive(Debug)]
pub(super) enum Phase<D: Device> {
    /// Disabled: RDY is 0.
    Off(Quiet<D>),
    /// The device was enabled, and is to be ready by this time.
    Starting(Starting<D>, Duration),
    /// The monitor asks its questions.
    Preparing(Live<D>),
    /// RDY is 1.
    Running(Live<D>),
    /// The guest has disabled its controller: the device completes what it has, until this time at most.
    Draining(Live<D>, Duration),
    /// The device was disabled, and is to have stopped by this time.
    Stopping(Stopping<D>, Duration),
    /// CFS is 1: the device was disabled, and the guest has not noticed yet.
    Failed(Stopping<D>),
    /// CFS is 1 for good: the device can be neither stopped nor reset.
    Dead(Stopping<D>),
    /// In the middle of a change.
    Moving,
}

impl<D: Device> Phase<D> {
    /// Resets the device, wherever it is.
    pub fn reset(self) -> (Self, Result<(), DeviceError>) {
        let stopping = match self {
            Self::Off(quiet) => {
                return match quiet.reset() {
                    Ok(quiet) => (Self::Off(quiet), Ok(())),
                    Err((quiet, error)) => (Self::Off(quiet), Err(error)),
                };
            }
            Self::Starting(starting, _) => starting.give_up(),
            Self::Preparing(live) | Self::Running(live) | Self::Draining(live, _) => live.disable(),
            Self::Stopping(stopping, _) | Self::Failed(stopping) | Self::Dead(stopping) => stopping,
            Self::Moving => return (Self::Moving, Err(DeviceError("no device".into()))),
        };
        match stopping.reset() {
            Ok(quiet) => (Self::Off(quiet), Ok(())),
            Err((stopping, error)) => (Self::Dead(stopping), Err(error)),
        }
    }
}

/// What a step came to.
pub(super) struct Step<D: Device> {
    /// Where the controller is now.
    pub phase: Phase<D>,
    /// What is to do next.
    pub next: Next,
}

impl<D: Device> Step<D> {
    /// There is more to do at once.
    pub fn again(phase: Phase<D>) -> Self {
        Self::new(phase, true, None)
    }

    /// Nothing until a signal.
    pub fn rest(phase: Phase<D>) -> Self {
        Self::new(phase, false, None)
    }

    /// Nothing until a signal, or for so long.
    pub fn wait(phase: Phase<D>, time: Duration) -> Self {
        Self::new(phase, false, Some(time))
    }

    fn new(mut phase: Phase<D>, is_busy: bool, within: Option<Duration>) -> Self {
        let has_queues = match &mut phase {
            Phase::Running(live) => live.parts().queues.io.has_submission(),
            _ => false,
        };
        let next = Next {
            is_busy,
            within,
            has_queues,
        };
        Self { phase, next }
    }
}

impl<D: Device, M: Machine> Controller<D, M> {
    /// Does what there is to do; `now` is the time by any clock that does not go back.
    pub fn service(&mut self, now: Duration) -> Next {
        let phase = std::mem::replace(&mut self.phase, Phase::Moving);
        let step = match phase {
            Phase::Off(quiet) => self.off(quiet, now),
            Phase::Starting(starting, deadline) => self.starting(starting, now, deadline),
            Phase::Preparing(live) => self.preparing(live, now),
            Phase::Running(live) => self.running(live, now),
            Phase::Draining(live, deadline) => self.draining(live, now, deadline),
            Phase::Stopping(stopping, deadline) => self.stopping(stopping, now, deadline),
            Phase::Failed(stopping) if self.is_stop_wanted => self.stop(stopping, now),
            Phase::Failed(stopping) => Step::rest(Phase::Failed(stopping)),
            Phase::Dead(stopping) => Step::rest(Phase::Dead(stopping)),
            Phase::Moving => Step::rest(Phase::Moving),
        };
        self.phase = step.phase;
        step.next
    }

    fn off(&mut self, quiet: Quiet<D>, now: Duration) -> Step<D> {
        if std::mem::take(&mut self.is_stop_wanted) {
            self.fault = None;
            self.shown = Shown::default();
        }
        let configuration = self.control.configuration;
        if !configuration.is_enabled() {
            let is_shutdown = configuration.shutdown() != 0;
            self.shown.shutdown = if is_shutdown { SHUTDOWN_COMPLETE } else { 0 };
            return Step::rest(Phase::Off(quiet));
        }
        if self.fault.is_some() {
            return Step::rest(Phase::Off(quiet));
        }
        if let Err(fault) = self.check_control() {
            self.show_fault(fault);
            return Step::rest(Phase::Off(quiet));
        }
        for queue in 0..=self.settings.plan.queues {
            self.machine.clear(Doorbell::tail(queue));
            self.machine.clear(Doorbell::head(queue));
        }
        self.session = self.settings.session(now);
        self.session.checked = self.control;
        match quiet.start() {
            Ok(starting) => {
                let deadline = now + self.settings.timeout;
                Step::again(Phase::Starting(starting, deadline))
            }
            Err((quiet, error)) => {
                if self.messages.take() {
                    log::error!("bus mastering cannot be turned on: {error}");
                }
                self.show_fault(Fault::Gone);
                Step::rest(Phase::Off(quiet))
            }
        }
    }

    /// CC, AQA, ASQ and ACQ have to be what is offered, and both queues the guest's memory.
    fn check_control(&self) -> Result<(), Fault> {
        let control = &self.control;
        let refuse = |register: &'static str, value: u64| Fault::Configuration { register, value };
        if !control.configuration.is_offered() {
            return Err(refuse("CC", control.configuration.0.into()));
        }
        let sizes = AdminSizes::new(control);
        if sizes.submission < 2 || sizes.completion < 2 {
            return Err(refuse("AQA", control.admin_sizes.into()));
        }
        let is_queue = |base: u64, bytes: u64, access: Access| {
            base.is_multiple_of(PAGE) && is_memory(&self.machine, Gpa(base), bytes, access)
        };
        let bytes = u64::from(sizes.submission) * ENTRY_BYTES as u64;
        if !is_queue(control.admin_submissions, bytes, Access::Read) {
            return Err(refuse("ASQ", control.admin_submissions));
        }
        let bytes = u64::from(sizes.completion) * COMPLETION_BYTES;
        if !is_queue(control.admin_completions, bytes, Access::Write) {
            return Err(refuse("ACQ", control.admin_completions));
        }
        Ok(())
    }

    /// A device must not be disabled before it is ready, so a guest that wants that has to wait.
    fn starting(&mut self, starting: Starting<D>, now: Duration, deadline: Duration) -> Step<D> {
        match starting.poll() {
            Started::Ready(live) => Step::again(Phase::Preparing(live)),
            Started::Failed(stopping, fault) => {
                self.show_fault(fault);
                Step::again(Phase::Failed(stopping))
            }
            Started::NotYet(starting) if now >= deadline => {
                let waited = self.settings.timeout.as_millis();
                let waited = u64::try_from(waited).unwrap_or(u64::MAX);
                self.show_fault(Fault::NotReady(waited));
                Step::again(Phase::Failed(starting.give_up()))
            }
            Started::NotYet(starting) => Step::wait(Phase::Starting(starting, deadline), POLL),
        }
    }

    fn preparing(&mut self, mut live: Live<D>, now: Duration) -> Step<D> {
        if self.is_stop_wanted {
            return Self::drain(live, now);
        }
        let mut desk = Desk {
            parts: live.parts(),
            session: &mut self.session,
            machine: &self.machine,
        };
        let finished = desk.finish();
        desk.ask(now);
        if let Err(fault) = finished.and_then(|_| self.check_answer(now)) {
            return self.fail(live, fault);
        }
        let Some(script) = self.session.script.take_if(|script| script.is_done()) else {
            return Step::wait(Phase::Preparing(live), POLL);
        };
        self.begin(&mut live, &script);
        Step::again(Phase::Running(live))
    }

    /// All questions are answered: the guest's controller is ready.
    fn begin(&mut self, live: &mut Live<D>, script: &Script) {
        let session = &mut self.session;
        session.limits = script
            .facts
            .limits(self.settings.plan, self.settings.vectors);
        session.namespaces = script.namespaces.clone();
        session.requests.wanted = script.facts.event_requests();
        let hidden = session.namespaces.hidden().iter();
        for hidden in hidden.take_while(|_| self.messages.take()) {
            log::warn!("namespace {} is hidden: {}", hidden.nsid, hidden.reason);
        }
        let control = &session.checked;
        let sizes = AdminSizes::new(control);
        live.parts().queues.admin.open(
            GuestSubmissions::new(Gpa(control.admin_submissions), sizes.submission),
            GuestCompletions::new(Gpa(control.admin_completions), sizes.completion),
        );
        self.shown.is_ready = true;
    }

    /// Whether the device is still within its time for the monitor's question.
    pub(super) fn check_answer(&self, now: Duration) -> Result<(), Fault> {
        let (Some(script), Some(asked_at)) = (&self.session.script, self.session.asked_at) else {
            return Ok(());
        };
        if now.saturating_sub(asked_at) > OWN_TIMEOUT {
            return Err(Fault::NoAnswer(script.name()));
        }
        Ok(())
    }

    pub(super) fn show_fault(&mut self, fault: Fault) {
        self.fault = Some(fault);
        self.shown.is_fatal = true;
    }
}

/// Entries of the guest's admin queues, by AQA.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
struct AdminSizes {
    submission: u16,
    completion: u16,
}

impl AdminSizes {
    fn new(control: &Control) -> Self {
        let size = |field: u16| (field & 0xfff) + 1;
        Self {
            submission: size(crate::bits::low16(control.admin_sizes)),
            completion: size(crate::bits::upper16(control.admin_sizes)),
        }
    }
}
