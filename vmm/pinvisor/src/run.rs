// SPDX-License-Identifier: Apache-2.0 OR BSD-3-Clause

//! `pinvisor run`: a guest until it ends, and again if it is to be restarted.

use std::path::PathBuf;

use host::{Sleep, SysRoot};
use vmm::config::ValidConfig;
use vmm::console::Console;
use vmm::{ExitReason, Harness, Remains, RunLimit, Vmm};

use crate::error::Error;
use crate::events::Event;
use crate::run_context::RunContext;
use crate::screen::print_message;

/// Runs the microVM that `config` describes until it ends, on `harness`, and reports to `host`.
///
/// # Errors
/// [`Error`]; what was set up is torn down by then, devices first.
pub fn run(config: &ValidConfig, harness: Harness<'_>, mut host: RunContext) -> Result<(), Error> {
    host.events.started();
    if !config.devices.is_empty()
        && let Some(sleep) = host::sleep(&SysRoot::default())
    {
        report_sleep(&sleep);
    }
    let ended = run_guests(config, harness, &mut host);
    let (reason, result) = match ended {
        Ok(ended) => {
            let outcome = vmm::outcome(ended.reason.clone()).map_err(vmm::Error::from);
            (Some(ended.reason), worse(outcome, ended.remains.torn_down))
        }
        Err(error) => (None, Err(error)),
    };
    host.ended(reason.as_ref(), &result);
    result
}

/// Reports that the host may go to sleep under a guest with devices: as a warning where a service may have it do so.
fn report_sleep(sleep: &Sleep) {
    let level = match sleep.by_service {
        true => log::Level::Warn,
        false => log::Level::Info,
    };
    log::log!(
        level,
        "This host can enter sleep states ({}), which a guest with devices does not survive; to \
         prevent that: systemd-inhibit --what=sleep pinvisor run ..., or systemctl mask \
         sleep.target",
        sleep.states
    );
}

/// Runs the guest until it ends, again if it is to be restarted. Clients of its serial port stay
/// connected.
fn run_guests(
    config: &ValidConfig,
    mut harness: Harness<'_>,
    host: &mut RunContext,
) -> Result<Ended, Error> {
    let mut console = Console::open(&config.serial, &host.confinement)?;
    if let Some(path) = console.path() {
        print_message(&format!(
            "pinvisor: the guest's serial port is {}\n",
            path.display()
        ));
    }
    loop {
        // What is not on the host serves one guest.
        let first = Harness {
            layout: harness.layout,
            machine: harness.machine.take(),
            handover: harness.handover.take(),
        };
        let ended = launch(config, first, &mut console, RunLimit::None, host)?;
        let remains = &ended.remains;
        if !host.starts_anew(&ended.reason, remains.was_asked, &remains.torn_down) {
            return Ok(ended);
        }
        console.release_terminal();
        vmm::unblock_signals()?;
    }
}

/// What to report of how the guest ended and of how its machine was taken apart: that memory is
/// kept, else what happened first. The other one is logged.
fn worse<T>(outcome: Result<T, vmm::Error>, torn_down: Result<(), vmm::Error>) -> Result<T, Error> {
    let (reported, logged) = match (outcome, torn_down) {
        (Err(error), Err(kept)) if kept.keeps_memory() => (Err(kept), Some(error)),
        (Err(error), torn_down) => (Err(error), torn_down.err()),
        (Ok(_), Err(error)) => (Err(error), None),
        (outcome, Ok(())) => (outcome, None),
    };
    if let Some(error) = logged {
        log::error!("{}", error.chain());
    }
    Ok(reported?)
}

/// How a guest ended, and what is left of its microVM.
#[derive(Debug)]
pub struct Ended {
    /// Why it ended.
    pub reason: ExitReason,
    /// What is left.
    pub remains: Remains,
}

/// Runs a microVM on `console` until it ends.
///
/// # Errors
/// [`Error`]; everything has been released by then.
pub fn launch(
    config: &ValidConfig,
    harness: Harness<'_>,
    console: &mut Console,
    limit: RunLimit,
    host: &mut RunContext,
) -> Result<Ended, Error> {
    let vmm = Vmm::start(
        config,
        harness,
        console,
        &host.confinement,
        &mut host.timings,
    )?;
    host.events.record(&Event::Ready {
        serial: console.path().map(PathBuf::as_path),
    });
    host.service.ready();
    let report = || host.service.alive();
    let ended = vmm.wait(console, limit, host.service.heartbeat(&report));
    host.guest_ended(ended.as_ref().ok());
    if let Ok(ExitReason::Device(device, message)) = &ended {
        host.events.record(&Event::DeviceError {
            device: *device,
            message,
        });
    }
    if let Some(first) = console.first_output() {
        host.timings.note("first output", first);
    }
    host.timings.done("guest");
    let remains = vmm.end();
    host.timings.done("tear-down");
    log::info!(
        "phases: {}; total {} ms",
        host.timings,
        host.timings.total().as_millis()
    );
    match ended {
        Ok(reason) => Ok(Ended { reason, remains }),
        Err(error) => worse(Err(error.into()), remains.torn_down),
    }
}

#[cfg(test)]
mod tests {
    use address::Bdf;

    use super::*;

    #[test]
    fn kept_memory_is_what_a_run_reports_and_else_what_came_first() {
        let bdf: Bdf = "01:00.0".parse().unwrap();
        let kept = || {
            vmm::Error::from(vmm::KeepError::MemoryKept {
                bdf,
                process: 7,
                status: keeper::Status::default(),
            })
        };
        let id = |outcome, torn_down| worse(outcome, torn_down).unwrap_err().id();
        assert_eq!(
            id(Err(vmm::RunError::GuestStatus(1).into()), Err(kept())),
            "memory-kept"
        );
        assert_eq!(id(Ok(()), Err(kept())), "memory-kept");
        assert_eq!(kept().exit_code(), vmm::ExitCode::Device);
        let hint = kept().hint();
        assert!(hint.is_some_and(
            |hint| hint.starts_with("pinvisor release 0000:01:00.0 resets")
                && hint.contains("do not kill process 7")
        ));
        assert_eq!(
            id(
                Err(vmm::RunError::GuestStatus(1).into()),
                Err(vmm::RunError::Panicked.into())
            ),
            "guest-status"
        );
        assert_eq!(
            id(Err(vmm::RunError::GuestStatus(1).into()), Ok(())),
            "guest-status"
        );
        assert!(worse(Ok(()), Ok(())).is_ok());
    }
}
