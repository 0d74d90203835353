// SPDX-License-Identifier: Apache-2.0 OR BSD-3-Clause

//! What a run has on the host besides its guest: events, a service manager, a log, a pidfile and timings.

use vmm::config::OnReset;
use vmm::confine::Confinement;
use vmm::{ExitReason, Timings};

use crate::config::HostConfig;
use crate::error::Error;
use crate::events::{Event, EventLog};
use crate::logging;
use crate::pidfile::Pidfile;
use crate::service::ServiceManager;

/// Log, events and pidfile of a run.
#[derive(Debug, Default)]
pub struct RunContext {
    pub(crate) events: EventLog,
    pub(crate) service: ServiceManager,
    pub(crate) timings: Timings,
    pub(crate) confinement: Confinement,
    on_reset: OnReset,
    pidfile: Option<Pidfile>,
    /// The log is not where errors are printed.
    log_is_elsewhere: bool,
}

impl RunContext {
    /// Of a program that has other work than its guest: only the guest's threads are confined.
    ///
    /// # Errors
    /// [`Error::Vmm`]
    pub fn of_guest() -> Result<Self, Error> {
        Ok(Self {
            confinement: Confinement::of_guest_threads()?,
            ..Self::default()
        })
    }

    /// Opens what `config` names and starts the log. To be called before this process opens
    /// anything that stays open, see [`EventLog::open`].
    ///
    /// # Errors
    /// [`Error::Events`], [`Error::Vmm`], [`Error::Pidfile`]
    pub fn open(config: &HostConfig) -> Result<Self, Error> {
        let events = EventLog::open(config)?;
        logging::start(config)?;
        // After the log has started, which it may warn in, and before a process is confined that opens no sockets.
        let service = ServiceManager::of_environment();
        let confinement = Confinement::new(&config.confine, config.on_reset)?;
        if !confinement.includes_main() {
            log::warn!(
                "--on-reset restart: only the threads that work for the guest are confined; the main thread keeps its \
                 privileges, because it opens the devices again"
            );
        }
        let pidfile = config.pidfile.as_deref().map(Pidfile::create);
        let pidfile = pidfile.transpose()?;
        if let Some(pidfile) = &pidfile {
            let allowed = confinement.may_remove_in(pidfile.directory());
            allowed.map_err(vmm::process("keep the pidfile's directory open"))?;
        }
        Ok(Self {
            events,
            service,
            timings: Timings::default(),
            confinement,
            on_reset: config.on_reset,
            pidfile,
            log_is_elsewhere: config.log_file.is_some(),
        })
    }

    /// Whether a guest that ended for `reason`, whose machine was `torn_down`, is restarted: not if
    /// it `was_asked` to power itself off. If so, that is logged, and the timings begin again.
    pub(crate) fn starts_anew(
        &mut self,
        reason: &ExitReason,
        was_asked: bool,
        torn_down: &Result<(), vmm::Error>,
    ) -> bool {
        let anew = self.on_reset == OnReset::Restart
            && *reason == ExitReason::Reset
            && !was_asked
            && torn_down.is_ok();
        if anew {
            log::info!("The guest requested a restart, and is booted again");
            self.events.record(&Event::Restart);
            self.service.restarts();
            self.timings = Timings::default();
        }
        anew
    }

    /// Reports that the guest has ended for `reason`, and that the run ends, too, unless the guest may be restarted.
    pub(crate) fn guest_ended(&self, reason: Option<&ExitReason>) {
        let may_start_anew =
            self.on_reset == OnReset::Restart && reason == Some(&ExitReason::Reset);
        if !may_start_anew {
            self.service.stopping(reason);
        }
    }

    /// Reports that the run has ended: for `reason`, if it got that far, and with `result`. The next run
    /// can be started then: the pidfile is gone.
    pub(crate) fn ended(mut self, reason: Option<&ExitReason>, result: &Result<(), Error>) {
        let message = result.as_ref().err().map(Error::chain);
        if let (Some(message), true) = (&message, self.log_is_elsewhere) {
            log::error!("{message}");
        }
        self.service.stopping(reason);
        self.service.ended(message.as_deref());
        self.pidfile = None;
        self.events.record(&Event::Shutdown {
            reason: reason.map_or("error", ExitReason::word),
            message: message.as_deref(),
            signal: match reason {
                Some(ExitReason::Signal(number)) => Some(*number),
                _ => None,
            },
            exit_code: result
                .as_ref()
                .map_or_else(|error| error.exit_code().into(), |()| 0),
        });
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn only_a_restart_that_was_asked_for_starts_anew() {
        let asked = |on_reset| RunContext {
            on_reset,
            ..RunContext::default()
        };
        let anew = |on_reset, reason: &ExitReason, torn_down: Result<(), vmm::Error>| {
            asked(on_reset).starts_anew(reason, false, &torn_down)
        };
        let reset = ExitReason::Reset;
        assert!(anew(OnReset::Restart, &reset, Ok(())));
        assert!(!anew(OnReset::Exit, &reset, Ok(())));
        // SIGTERM asks for an end.
        assert!(!asked(OnReset::Restart).starts_anew(&reset, true, &Ok(())));
        // What is still held cannot be taken again.
        assert!(!anew(
            OnReset::Restart,
            &reset,
            Err(vmm::RunError::Panicked.into())
        ));
        for other in [
            ExitReason::PowerOff { status: 0 },
            ExitReason::Signal(15),
            ExitReason::Quit,
            ExitReason::GuestCrash(String::new()),
        ] {
            assert!(!anew(OnReset::Restart, &other, Ok(())), "{other:?}");
        }
    }
}
