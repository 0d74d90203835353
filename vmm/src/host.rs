//! What a run has on the host besides its guest: events, a log, a pidfile, and the time it took.

use crate::config::HostConfig;
use crate::error::Error;
use crate::events::{Event, EventLog};
use crate::exit::ExitReason;
use crate::logging;
use crate::phases::Phases;
use crate::pidfile::Pidfile;

/// Those who watch over a run.
#[derive(Debug, Default)]
pub struct Host {
    pub(crate) events: EventLog,
    pub(crate) phases: Phases,
    pidfile: Option<Pidfile>,
    /// The log is not where errors are printed.
    log_is_elsewhere: bool,
}

impl Host {
    /// Opens what `config` names and starts the log. To be called before this process opens
    /// anything that stays open, see [`EventLog::open`].
    ///
    /// # Errors
    /// [`Error::Events`], [`Error::File`], [`Error::Pidfile`]
    pub fn open(config: &HostConfig) -> Result<Self, Error> {
        let events = EventLog::open(config)?;
        logging::start(config)?;
        let pidfile = config.pidfile.as_deref().map(Pidfile::create);
        Ok(Self {
            events,
            phases: Phases::default(),
            pidfile: pidfile.transpose()?,
            log_is_elsewhere: config.log_file.is_some(),
        })
    }

    /// Tells that the run has ended: for `reason`, if it got that far, and with `result`. Whoever
    /// waits for that can start the next one: the pidfile is gone.
    pub(crate) fn ended(mut self, reason: Option<&ExitReason>, result: &Result<(), Error>) {
        let message = result.as_ref().err().map(Error::chain);
        if let (Some(message), true) = (&message, self.log_is_elsewhere) {
            log::error!("{message}");
        }
        self.pidfile = None;
        self.events.tell(&Event::Shutdown {
            reason: reason.map_or("error", ExitReason::word),
            message: message.as_deref(),
            signal: match reason {
                Some(ExitReason::Signal(number)) => Some(*number),
                _ => None,
            },
            exit_code: result.as_ref().map_or_else(Error::exit_code, |()| 0),
        });
    }
}
