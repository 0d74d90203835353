//! Policy and KVM: from what the user wants to a running guest, and back.
//!
//! [`run_guest`] is the story. Data flows one way: [`config::Config`] -> devices bound to `/dev/iommu`
//! -> guest memory pinned -> its physical extents -> a plan of its addresses -> memslots,
//! boot data and PCI functions -> vCPUs, in the stages of `stages`; and back by `teardown`.

mod arch;
mod boot;
mod bus;
pub mod cli;
pub mod config;
mod error;
pub mod events;
pub mod fatal;
mod host;
mod kvm;
pub mod logging;
mod memory;
mod passthrough;
pub mod pidfile;
pub mod plan;
mod progress;
mod run;
mod screen;
mod stages;
pub mod stress;
mod teardown;

pub use error::Error;
pub use host::Host;
pub use memory::layout::{Conventional, Identity, Layout, Swapped};
pub use run::limits;
pub use screen::say;

use std::path::PathBuf;

use config::Config;
use events::Event;
use run::console::Console;
use run::event_loop::{self, Stay};
use run::exit::ExitReason;
use run::vmm::Remains;

/// The version, with the commit where it is known.
pub const VERSION: &str = env!("PINVISOR_VERSION");

/// Runs the microVM that `config` describes until it ends, and tells `host` about it. Where
/// devices use physical addresses, its RAM is placed by `layout`: [`Identity`], unless the harm of
/// another one is to be shown.
///
/// # Errors
/// [`Error`]; what was set up is torn down by then, devices first.
pub fn run_guest(config: &Config, layout: &dyn Layout, mut host: Host) -> Result<(), Error> {
    host.events.started();
    let ended = run_guests(config, layout, &mut host);
    let (reason, result) = match ended {
        Ok(ended) => {
            let outcome = event_loop::outcome(ended.reason.clone());
            (Some(ended.reason), worse(outcome, ended.remains.torn_down))
        }
        Err(error) => (None, Err(error)),
    };
    host.ended(reason.as_ref(), &result);
    result
}

/// Runs the guest until it ends, again if it is to be started anew. Whoever is at its serial port stays.
fn run_guests(config: &Config, layout: &dyn Layout, host: &mut Host) -> Result<Ended, Error> {
    let mut console = Console::open(&config.serial)?;
    if let Some(path) = console.path() {
        say(&format!(
            "pinvisor: the guest's serial port is {}\n",
            path.display()
        ));
    }
    loop {
        let ended = launch(config, layout, (&mut console, Stay::AsLongAsItLikes), host)?;
        let remains = &ended.remains;
        if !host.starts_anew(&ended.reason, remains.was_asked, &remains.torn_down) {
            return Ok(ended);
        }
        console.release_terminal();
        event_loop::let_signals_through()?;
    }
}

/// What to report of how the guest ended and of how its machine was taken apart: that memory is
/// kept, else what happened first. The other one is logged.
fn worse<T>(outcome: Result<T, Error>, torn_down: Result<(), Error>) -> Result<T, Error> {
    let (reported, logged) = match (outcome, torn_down) {
        (Err(error), Err(kept @ Error::MemoryKept { .. })) => (Err(kept), Some(error)),
        (Err(error), torn_down) => (Err(error), torn_down.err()),
        (Ok(_), Err(error)) => (Err(error), None),
        (outcome, Ok(())) => (outcome, None),
    };
    if let Some(error) = logged {
        log::error!("{}", error.chain());
    }
    reported
}

/// How a guest ended, and what is left of its microVM.
#[derive(Debug)]
struct Ended {
    reason: ExitReason,
    remains: Remains,
}

/// Runs a microVM on `console` until it ends.
fn launch(
    config: &Config,
    layout: &dyn Layout,
    (console, stay): (&mut Console, Stay),
    host: &mut Host,
) -> Result<Ended, Error> {
    let vmm = stages::start(config, layout, console, &mut host.phases)?;
    host.events.tell(&Event::Ready {
        serial: console.path().map(PathBuf::as_path),
    });
    let ended = vmm.wait(console, stay);
    if let Ok(ExitReason::Device(device, message)) = &ended {
        host.events.tell(&Event::DeviceError {
            device: *device,
            message,
        });
    }
    if let Some(first) = console.first_output() {
        host.phases.note("first output", first);
    }
    host.phases.done("guest");
    let remains = vmm.end();
    host.phases.done("tear-down");
    log::info!(
        "phases: {}; total {} ms",
        host.phases,
        host.phases.total().as_millis()
    );
    match ended {
        Ok(reason) => Ok(Ended { reason, remains }),
        Err(error) => worse(Err(error), remains.torn_down),
    }
}

/// The low and the high 32 bits.
fn halves(value: u64) -> (u32, u32) {
    #[expect(clippy::cast_possible_truncation, reason = "the low half is wanted")]
    let low = value as u32;
    let high = (value >> 32) as u32;
    (low, high)
}

#[cfg(test)]
mod tests {
    use address::Bdf;

    use super::*;

    #[test]
    fn kept_memory_is_what_a_run_reports_and_else_what_came_first() {
        let bdf: Bdf = "01:00.0".parse().unwrap();
        let kept = || Error::MemoryKept {
            bdf,
            process: 7,
            status: keeper::Status::default(),
        };
        let id = |outcome, torn_down| worse(outcome, torn_down).unwrap_err().id();
        assert_eq!(id(Err(Error::GuestStatus(1)), Err(kept())), "memory-kept");
        assert_eq!(id(Ok(()), Err(kept())), "memory-kept");
        assert_eq!(kept().exit_code(), 3);
        let hint = kept().hint();
        assert_eq!(hint.as_deref(), Some("pinvisor release 0000:01:00.0"));
        assert_eq!(
            id(Err(Error::GuestStatus(1)), Err(Error::Panicked)),
            "guest-status"
        );
        assert_eq!(id(Err(Error::GuestStatus(1)), Ok(())), "guest-status");
        assert!(worse(Ok(()), Ok(())).is_ok());
    }
}
