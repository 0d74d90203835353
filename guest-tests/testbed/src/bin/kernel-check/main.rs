// SPDX-License-Identifier: Apache-2.0 OR BSD-3-Clause

//! Runs on the test machine: holds the backend's table against the kernel's own answers, and the
//! kernel's refusals against what the backend makes of them.
//!
//! `kernel-check differential|refusals|areas|revoked|unsupported|runs|window|cost BDF` and `kernel-check attach BDF
//! BDF`, as root, with the functions bound to vfio-pci in noiommu mode. Prints what it compared; exits with 1 at the first difference.

mod areas;
mod attach;
mod cost;
mod differential;
mod pagemap;
mod raw;
mod refusals;
mod revoked;
mod runs;
mod unsupported;
mod window;

use std::error::Error;
use std::process::ExitCode;

use address::Bdf;
use iommufd_backend::{PciSysfs, Quiet, VfioDevice, quiesce};

/// What a check that holds has compared.
type Outcome = Result<String, Box<dyn Error>>;

/// Ends the device's DMA, closes it, and returns the evidence for which its memory is released.
fn close(device: VfioDevice) -> Result<Vec<Quiet>, iommufd_backend::Error> {
    let reset = device.reset_method(&PciSysfs::default())?;
    let evidence = quiesce(&[(&device, &reset)]).into_iter().collect();
    drop(device);
    evidence
}

fn main() -> ExitCode {
    let arguments: Vec<String> = std::env::args().skip(1).collect();
    let (check, result) = match arguments.as_slice() {
        [check, bdf] => (check, run(check, bdf)),
        [check, first, second] if check == "attach" => (check, two(first, second)),
        _ => {
            eprintln!(
                "usage: kernel-check differential|refusals|areas|revoked|unsupported|runs|window|cost BDF\n       \
                 kernel-check attach BDF BDF"
            );
            return ExitCode::from(2);
        }
    };
    match result {
        Ok(summary) => {
            println!("{check}: {summary}");
            ExitCode::SUCCESS
        }
        Err(error) => {
            println!("{check}: FAILED: {error}");
            ExitCode::FAILURE
        }
    }
}

fn run(check: &str, bdf: &str) -> Outcome {
    let bdf: Bdf = bdf.parse()?;
    match check {
        "areas" => areas::run(bdf),
        "cost" => cost::run(bdf),
        "differential" => differential::run(bdf),
        "refusals" => refusals::run(bdf),
        "revoked" => revoked::run(bdf),
        "runs" => runs::run(bdf),
        "unsupported" => unsupported::run(bdf),
        "window" => window::run(bdf),
        other => Err(format!("{other} is not a check").into()),
    }
}

fn two(first: &str, second: &str) -> Outcome {
    attach::run(first.parse()?, second.parse()?)
}
