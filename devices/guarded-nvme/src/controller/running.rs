// SPDX-License-Identifier: Apache-2.0 OR BSD-3-Clause

//! A controller that works.

use std::time::Duration;

use super::admin::Desk;
use super::events::Event;
use super::phase::{Phase, Step};
use super::script::Script;
use super::{Controller, session::Session};
use crate::check::io::Rules;
use crate::device::Device;
use crate::fault::Fault;
use crate::guest::Machine;
use crate::link::{Live, Parts};
use crate::queue::{Served, Surroundings};
use crate::spec::registers::SHUTDOWN_COMPLETE;

/// How often CSTS is looked at while there is work.
const OBSERVE: Duration = Duration::from_millis(100);
/// How often without work.
const OBSERVE_IDLE: Duration = Duration::from_secs(1);
/// How often during a shutdown, while the monitor waits for an answer, and while the guest has to read completions first.
const OBSERVE_SOON: Duration = Duration::from_millis(1);

impl<D: Device, M: Machine> Controller<D, M> {
    pub(super) fn running(&mut self, mut live: Live<D>, now: Duration) -> Step<D> {
        if self.is_stop_wanted {
            return Self::drain(live, now);
        }
        let served = serve(live.parts(), &mut self.session, &self.machine);
        let served = served.and_then(|served| {
            self.review(&mut live, now);
            self.check_answer(now)?;
            self.observe(&live, now)?;
            Ok(served)
        });
        match served {
            Err(fault) => self.fail(live, fault),
            Ok(served) if served.is_busy => Step::again(Phase::Running(live)),
            Ok(served) if served.is_held || self.is_waiting() => {
                Step::wait(Phase::Running(live), OBSERVE_SOON)
            }
            Ok(_) => Step::wait(Phase::Running(live), OBSERVE_IDLE),
        }
    }

    /// Whether something is to happen soon that no signal announces.
    fn is_waiting(&self) -> bool {
        let is_shutting = self.session.shutdown != 0 && self.shown.shutdown != SHUTDOWN_COMPLETE;
        is_shutting || self.session.script.is_some()
    }

    /// Passes a shutdown on, and looks at the device's status now and then.
    fn observe(&mut self, live: &Live<D>, now: Duration) -> Result<(), Fault> {
        let shutdown = self.control.configuration.shutdown();
        if shutdown != 0 && self.session.shutdown != shutdown {
            self.session.shutdown = shutdown;
            live.shut_down(shutdown);
        }
        let since = now.saturating_sub(self.session.observed_at);
        if since < OBSERVE && !self.is_waiting() {
            return Ok(());
        }
        self.session.observed_at = now;
        let status = live.status();
        if status.is_gone() {
            return Err(Fault::Gone);
        }
        if status.is_fatal() {
            return Err(Fault::Fatal);
        }
        self.shown.is_paused = status.is_paused();
        if self.session.shutdown != 0 {
            self.shown.shutdown = status.shutdown();
        }
        Ok(())
    }

    /// Goes through the namespaces again after a notice, with all I/O stopped, and only then gives the guest its own.
    fn review(&mut self, live: &mut Live<D>, now: Duration) {
        let session = &mut self.session;
        if session.script.is_none() && std::mem::take(&mut session.is_review_due) {
            let settings = &self.settings;
            session.script = Some(Script::review(settings.cap, settings.version));
        }
        let mut desk = Desk {
            parts: live.parts(),
            session,
            machine: &self.machine,
        };
        desk.ask(now);
        // It may not have been asked yet: the guest's commands can have all identifiers.
        if let Some(script) = self.session.script.take_if(|script| script.is_done()) {
            finish_review(&mut self.session, script);
        }
    }
}

fn finish_review(session: &mut Session, script: Script) {
    session.changed.add(&script.changed);
    session.namespaces = script.namespaces;
    session.events.report(Event::Namespaces);
}

/// Does all that queues and doorbells ask for.
fn serve<D: Device, M: Machine>(
    parts: &mut Parts<D>,
    session: &mut Session,
    machine: &M,
) -> Result<Served, Fault> {
    let mut desk = Desk {
        parts,
        session,
        machine,
    };
    let mut served = Served::default();
    served.is_busy |= desk.finish()?;
    desk.request_events();
    let Parts { device, queues } = &mut *desk.parts;
    served = served.and(queues.io.complete(device, machine)?);
    served = served.and(desk.take()?);
    served = served.and(take_io(&mut desk)?);
    if served.is_bad_value {
        desk.session.events.report(Event::BAD_VALUE);
    }
    if served.is_bad_doorbell {
        desk.session.events.report(Event::BAD_DOORBELL);
    }
    desk.deliver()?;
    served.is_held |= desk.session.events.is_due();
    let queues = &mut desk.parts.queues;
    queues.admin.signal(machine);
    queues.io.signal(machine);
    Ok(served)
}

/// Takes I/O commands, unless the namespaces are being gone through.
fn take_io<D: Device, M: Machine>(desk: &mut Desk<'_, D, M>) -> Result<Served, Fault> {
    if desk.session.is_paused() {
        return Ok(Served::default());
    }
    let around = Surroundings {
        machine: desk.machine,
        rules: Rules {
            limits: &desk.session.limits,
            namespaces: &desk.session.namespaces,
        },
    };
    let Parts { device, queues } = &mut *desk.parts;
    queues.io.take(device, &around)
}
