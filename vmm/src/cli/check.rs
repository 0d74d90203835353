//! `pinvisor check`.

use std::io;
use std::process::ExitCode;

use address::Bdf;
use clap::Args;
use host_check::{Host, Wanted, WantedMemory};

use super::written;
use crate::config::MemoryConfig;
use crate::error::Error;

/// Something stands in the way of a run.
const NOT_READY: u8 = 2;

/// Options of `pinvisor check`.
#[derive(Args, Debug)]
#[command(after_help = AFTER)]
pub struct CheckArgs {
    /// PCI devices that are to be passed through; without any, only the machine is looked at
    #[arg(value_name = "BDF")]
    devices: Vec<Bdf>,

    /// Guest RAM that is to be had: SIZE[,hugepage_size=2M|1G], for example 512M
    #[arg(long, value_name = "SIZE[,hugepage_size=2M|1G]")]
    memory: Option<MemoryConfig>,

    /// Write JSON: an object with version (1), ok, and checks, a list of objects with id, device,
    /// verdict (ok, warn or fail), text and next
    #[arg(long)]
    json: bool,
}

const AFTER: &str = "\
Each line begins with OK, WARN or FAIL and the check's name, which stays the same from version to \
version (docs/checks.md lists them). A line that is not OK is followed by the next command to type. \
Nothing is changed, and no device is opened.

Exit codes:
  0  no line is FAIL: a run is possible
  2  a line is FAIL";

impl CheckArgs {
    /// Looks, and writes to standard output.
    ///
    /// # Errors
    /// [`Error::Process`] if standard output takes nothing.
    pub fn run(self) -> Result<ExitCode, Error> {
        let wanted = Wanted {
            devices: self.devices,
            memory: self.memory.map(|memory| WantedMemory {
                bytes: memory.size,
                hugepage_size: memory.hugepage_size,
            }),
        };
        let report = host_check::check(&Host::default(), &wanted);
        written(if self.json {
            report.write_json(&mut io::stdout().lock())
        } else {
            report.write_text(&mut anstream::stdout().lock())
        })?;
        Ok(if report.is_ok() {
            ExitCode::SUCCESS
        } else {
            NOT_READY.into()
        })
    }
}
