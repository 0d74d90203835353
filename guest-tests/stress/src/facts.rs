// SPDX-License-Identifier: Apache-2.0 OR BSD-3-Clause

//! The monitor's data about a stress run.

use std::time::Duration;

use address::{Bdf, Gpa, Iova};
use devices::guest_table::Piece;
use devices::mediate::Statistics;
use software_memory::BusAddress;
use stress_report::{
    Bar, Ending, Extent, Landmark, Mediated, Outcome, Refusal, Refusals, RefusedFor, Setup,
};

use pinvisor::Ended;
use vmm::config::Config;
use vmm::{ExitReason, LOW_MEMORY_SIZE, MachineInfo};

use crate::error::Error;
use crate::machine;

/// What ran, and where everything lay.
///
/// # Errors
/// [`Error::Pinvisor`]
pub fn setup(config: &Config, description: &MachineInfo) -> Result<Setup, Error> {
    let extent = |piece: Piece| Extent {
        gpa: piece.gpa,
        hpa: piece.hpa,
        len: piece.len,
    };
    let extents = description.ram.pieces().map(|piece| piece.map(extent));
    let extents: Vec<_> = extents
        .collect::<Result<_, _>>()
        .map_err(vmm::Error::from)?;
    let bars = description.bars.iter().map(|(name, range)| Bar {
        name: name.clone().into(),
        gpa: range.start,
        len: range.end - range.start,
    });
    let kernel = &description.kernel;
    let landmarks = [
        ("low memory", Gpa(0)..Gpa(LOW_MEMORY_SIZE)),
        ("kernel", kernel.clone()),
    ];
    let arguments: Vec<_> = std::env::args_os()
        .map(|word| word.to_string_lossy().into_owned())
        .collect();
    Ok(Setup {
        monitor: format!("pinvisor {}", pinvisor::VERSION).into(),
        host_kernel: rustix::system::uname()
            .release()
            .to_string_lossy()
            .into_owned()
            .into(),
        command_line: arguments.join(" ").into(),
        guest_command_line: config.command_line.clone().into(),
        backend: description.backend.into(),
        extents,
        bars: bars.collect(),
        landmarks: landmarks
            .into_iter()
            .map(|(name, range)| Landmark {
                name: name.into(),
                gpa: range.start,
                len: range.end - range.start,
            })
            .collect(),
    })
}

/// How it ended.
pub fn outcome(ended: &Ended, refusals: &machine::Refusals, took: Duration) -> Outcome {
    let (status, ending) = match &ended.reason {
        ExitReason::PowerOff { status } => (Some(*status), Ending::PoweredOff),
        ExitReason::Reset => (None, Ending::Reset),
        ExitReason::GuestCrash(text) => (None, Ending::Crashed(text.clone().into())),
        ExitReason::Signal(number) => stopped(format!("signal {number}")),
        ExitReason::Quit => stopped("from the terminal".to_owned()),
        ExitReason::TerminalGone => stopped("its terminal closed".to_owned()),
        ExitReason::Panic => stopped("a thread of the monitor panicked".to_owned()),
        ExitReason::TimeLimit(limit) => {
            stopped(format!("it was not finished after {} s", limit.as_secs()))
        }
        ExitReason::NoWorker => stopped("KVM could not start its worker thread".to_owned()),
        ExitReason::AccessFailed(_) => stopped("an access failed on the host".to_owned()),
        ExitReason::Device(bdf, reason) => stopped(format!("PCI device {bdf}: {reason}")),
    };
    let last = refusals.last.iter().map(|fault| Refusal {
        address: match fault.address {
            BusAddress::Iova(iova) => iova,
            BusAddress::Bus(address) => Iova(address.0),
        },
        len: fault.len,
    });
    let mediated = ended.remains.mediated.iter();
    let mediated = mediated.map(|(bdf, done)| self::mediated(*bdf, done));
    Outcome {
        status,
        ending,
        refusals: Refusals {
            count: refusals.count,
            last: last.collect(),
        },
        mediated: mediated.collect(),
        duration_ms: u64::try_from(took.as_millis()).unwrap_or(u64::MAX),
    }
}

fn mediated(bdf: Bdf, done: &Statistics) -> Mediated {
    let reasons = done.refused_for.iter().map(|(reason, count)| RefusedFor {
        reason: (*reason).into(),
        count: *count,
    });
    Mediated {
        device: bdf.to_string().into(),
        started: done.started,
        refused: done.refused,
        reasons: reasons.collect(),
        busy: done.busy,
        failed: done.failed,
        ignored: done.ignored,
    }
}

fn stopped(why: String) -> (Option<u8>, Ending) {
    (None, Ending::Stopped(why.into()))
}
