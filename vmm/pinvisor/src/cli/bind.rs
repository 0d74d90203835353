// SPDX-License-Identifier: Apache-2.0 OR BSD-3-Clause

//! `pinvisor bind` and `pinvisor unbind`.

use std::io::{self, Write};
use std::process::ExitCode;

use address::Bdf;
use clap::Args;
use host::{Bound, SysRoot, Unbound};
use iommufd_backend::CdevKind;

use super::written;
use crate::error::Error;

/// Options of `pinvisor bind`.
#[derive(Args, Debug)]
#[command(after_help = AFTER_BIND)]
pub struct BindArgs {
    /// PCI devices to bind to vfio-pci
    #[arg(value_name = "BDF", required = true)]
    devices: Vec<Bdf>,

    /// Bind a device even if it holds a mounted file system or swap, or carries a network route:
    /// its users then fail
    #[arg(long)]
    force: bool,
}

const AFTER_BIND: &str = "Loads vfio-pci if it is a module, sets the device's driver_override, \
                          unbinds its driver and waits for the device node. A device that is \
                          already bound stays bound. If vfio-pci does not bind it, its own driver \
                          is bound again.

If no IOMMU isolates the device, the kernel's unsafe \
                          mode must be on: echo 1 > \
                          /sys/module/vfio/parameters/enable_unsafe_noiommu_mode. Binding then \
                          taints the kernel. The mode can be switched off after that, but on kernels before 7.3, \
                          where each run requires it.

All devices \
                          are checked before the first one is changed.";

/// Options of `pinvisor unbind`.
#[derive(Args, Debug)]
#[command(after_help = AFTER_UNBIND)]
pub struct UnbindArgs {
    /// PCI devices to return to their own drivers
    #[arg(value_name = "BDF", required = true)]
    devices: Vec<Bdf>,
}

const AFTER_UNBIND: &str = "Clears the device's driver_override, unbinds vfio-pci, and lets the \
                            kernel find the device's own driver, which is printed. A device that \
                            already has its own driver keeps it. A device that a process has open \
                            is refused: the kernel would wait for that process.";

impl BindArgs {
    /// Binds.
    ///
    /// # Errors
    /// [`Error::Vmm`] if standard output cannot be written.
    pub fn run(self) -> Result<ExitCode, Error> {
        let root = SysRoot::default();
        for bdf in &self.devices {
            host::prepare(&root, *bdf, self.force)?;
            for keeper in host::keepers_of(&root, *bdf) {
                log::warn!("{}: pinvisor release {bdf}", host::keeper_text(&keeper));
            }
        }
        for bdf in self.devices {
            let bound = host::bind(&root, bdf, self.force)?;
            written(writeln!(io::stdout(), "{bdf}: {}", bound_text(&bound)))?;
        }
        Ok(ExitCode::SUCCESS)
    }
}

impl UnbindArgs {
    /// Unbinds.
    ///
    /// # Errors
    /// [`Error::Vmm`] if standard output cannot be written.
    pub fn run(self) -> Result<ExitCode, Error> {
        let root = SysRoot::default();
        for bdf in self.devices {
            let unbound = host::unbind(&root, bdf)?;
            written(writeln!(io::stdout(), "{bdf}: {}", unbound_text(&unbound)))?;
        }
        Ok(ExitCode::SUCCESS)
    }
}

fn bound_text(bound: &Bound) -> String {
    let Bound { driver, node, .. } = bound;
    let mode = match bound.kind {
        CdevKind::Noiommu => "no IOMMU isolates it",
        CdevKind::Iommu => "behind an IOMMU",
    };
    let how = match (&bound.before, bound.already) {
        (_, true) => format!("already bound to {driver}"),
        (Some(before), false) => format!("bound to {driver}, taken from {before}"),
        (None, false) => format!("bound to {driver}; it had no driver"),
    };
    format!("{how}; {node}, {mode}")
}

fn unbound_text(unbound: &Unbound) -> String {
    match (&unbound.before, &unbound.driver) {
        (Some(before), Some(driver)) => format!("taken from {before}, bound to {driver} again"),
        (Some(before), None) => format!("taken from {before}; no driver claims it"),
        (None, Some(driver)) => format!("already bound to {driver}"),
        (None, None) => "already without a driver".to_owned(),
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn what_was_done_is_distinguished_from_what_was_so() {
        let mut bound = Bound {
            driver: "vfio-pci".into(),
            before: Some("nvme".into()),
            already: false,
            node: "/dev/vfio/devices/noiommu-vfio0".into(),
            kind: CdevKind::Noiommu,
        };
        assert_eq!(
            bound_text(&bound),
            "bound to vfio-pci, taken from nvme; /dev/vfio/devices/noiommu-vfio0, no IOMMU \
             isolates it"
        );
        bound.already = true;
        assert!(bound_text(&bound).starts_with("already bound"));
        let mut unbound = Unbound {
            driver: Some("nvme".into()),
            before: Some("vfio-pci".into()),
        };
        assert_eq!(
            unbound_text(&unbound),
            "taken from vfio-pci, bound to nvme again"
        );
        unbound.before = None;
        assert_eq!(unbound_text(&unbound), "already bound to nvme");
    }
}
