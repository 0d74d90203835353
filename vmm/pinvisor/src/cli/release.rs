// SPDX-License-Identifier: Apache-2.0 OR BSD-3-Clause

//! `pinvisor release`.

use std::io::{self, Write};
use std::process::ExitCode;
use std::time::Duration;

use address::Bdf;
use clap::Args;
use host::SysRoot;
use iommufd_backend::settle;
use keeper::Found;

use super::written;
use crate::error::Error;

/// Options of `pinvisor release`.
#[derive(Args, Debug)]
#[command(after_help = AFTER)]
pub struct ReleaseArgs {
    /// PCI devices whose guest memory is kept, as pinvisor list shows
    #[arg(value_name = "BDF", required = true)]
    devices: Vec<Bdf>,
}

const AFTER: &str = "Disables the device's bus mastering and resets it by the strongest available \
                     method; a device that was removed is reset by the bridge above, if it was the \
                     only one behind it. The memory is released only if that succeeds. A device \
                     that is bound to a driver is not reset: unbind it first.";

/// How long a device may take that the kernel is taking apart.
const SETTLE: Duration = Duration::from_secs(2);

impl ReleaseArgs {
    /// Resets and releases.
    ///
    /// # Errors
    /// [`Error::NoKeeper`], [`Error::Vmm`]: why a device is not quiet; [`Error::Vmm`] if standard
    /// output cannot be written.
    pub fn run(self) -> Result<ExitCode, Error> {
        for bdf in self.devices {
            let texts = release(bdf)?;
            written(writeln!(io::stdout(), "{bdf}: {texts}"))?;
        }
        Ok(ExitCode::SUCCESS)
    }
}

fn release(bdf: Bdf) -> Result<String, Error> {
    let root = SysRoot::default();
    let found = host::keepers_of(&root, bdf);
    if found.is_empty() {
        return Err(Error::NoKeeper { bdf });
    }
    host::ensure_closed(&root, bdf)?;
    let mut texts = Vec::new();
    for keeper in &found {
        let devices = &keeper.status.devices;
        let ours: Vec<Bdf> = devices.iter().map(|device| device.bdf).collect();
        let Some(device) = devices.iter().find(|device| device.bdf == bdf) else {
            continue;
        };
        let quiet = settle(root.pci(), &device.leftover(), &ours, SETTLE)?;
        let left = keeper::release(keeper, bdf)?;
        texts.push(released_text(keeper, &quiet.because().to_string(), &left));
    }
    Ok(texts.join("; "))
}

fn released_text(keeper: &Found, because: &str, left: &keeper::Status) -> String {
    match left.devices.as_slice() {
        [] => format!("{because}; {} MiB are released", keeper.status.bytes >> 20),
        _ => format!("{because}; process {} still keeps {left}", keeper.pid),
    }
}
