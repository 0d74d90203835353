// SPDX-License-Identifier: Apache-2.0 OR BSD-3-Clause

//! `pinvisor list`.

use std::io;
use std::process::ExitCode;

use clap::Args;
use host::SysRoot;

use super::written;
use crate::error::Error;

/// Options of `pinvisor list`.
#[derive(Args, Debug)]
#[command(after_help = AFTER)]
pub struct ListArgs {
    /// Write JSON: an object with version (1), iommufd (the node that a run needs beside cdev, or null),
    /// devices, a list of objects with bdf, vendor, device, class, class_name, vendor_name,
    /// device_name, driver, mode (noiommu, iommu or null), cdev and group (the device's nodes, or null), backend (cdev,
    /// group or null), reset, strongest_reset, in_use and on aarch64 host_bridge, and keepers, a list of objects with pid, bytes, devices, text and
    /// next
    #[arg(long)]
    json: bool,
}

const AFTER: &str = "MODE is how a device is bound to vfio-pci: noiommu if no IOMMU isolates it, \
                     iommu if one does, - if it is not bound. RESET is the strongest reset that \
                     the kernel has for it. Processes that keep guest memory pinned follow, with \
                     the command that releases it. Names are read from a pci.ids file, if \
                     installed.";

impl ListArgs {
    /// Looks, and writes to standard output.
    ///
    /// # Errors
    /// [`Error::Vmm`] if standard output cannot be written.
    pub fn run(&self) -> Result<ExitCode, Error> {
        let devices = host::list(&SysRoot::default());
        let out = &mut io::stdout().lock();
        written(if self.json {
            devices.write_json(out)
        } else {
            devices.write_text(out)
        })?;
        Ok(ExitCode::SUCCESS)
    }
}
