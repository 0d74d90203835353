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
    /// PCI devices to give to vfio-pci
    #[arg(value_name = "BDF", required = true)]
    devices: Vec<Bdf>,

    /// Take a device even if it holds a mounted file system or swap, or a network is reached by it:
    /// what uses it fails
    #[arg(long)]
    force: bool,
}

const AFTER_BIND: &str = "\
Loads vfio-pci if it is a module, sets the device's driver_override, takes the device from its \
driver and waits for its node. A device that is bound already stays so. If vfio-pci does not take \
it, its own driver gets it back.

Where no IOMMU stands before the device, the kernel's unsafe mode must be on: \
echo 1 > /sys/module/vfio/parameters/enable_unsafe_noiommu_mode. Binding taints the kernel then. \
The mode may be switched off again after that.

All devices are looked at before the first one is touched.";

/// Options of `pinvisor unbind`.
#[derive(Args, Debug)]
#[command(after_help = AFTER_UNBIND)]
pub struct UnbindArgs {
    /// PCI devices to give back to their own drivers
    #[arg(value_name = "BDF", required = true)]
    devices: Vec<Bdf>,
}

const AFTER_UNBIND: &str = "\
Clears the device's driver_override, takes it from vfio-pci, and lets the kernel find its own \
driver, which is named. A device that has its own driver already keeps it. One that a process has \
open is refused: the kernel would wait for that process.";

impl BindArgs {
    /// Binds.
    ///
    /// # Errors
    /// [`Error::Vmm`] if standard output takes nothing.
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
            written(writeln!(io::stdout(), "{bdf}: {}", tell_bound(&bound)))?;
        }
        Ok(ExitCode::SUCCESS)
    }
}

impl UnbindArgs {
    /// Unbinds.
    ///
    /// # Errors
    /// [`Error::Vmm`] if standard output takes nothing.
    pub fn run(self) -> Result<ExitCode, Error> {
        let root = SysRoot::default();
        for bdf in self.devices {
            let unbound = host::unbind(&root, bdf)?;
            written(writeln!(io::stdout(), "{bdf}: {}", tell_unbound(&unbound)))?;
        }
        Ok(ExitCode::SUCCESS)
    }
}

fn tell_bound(bound: &Bound) -> String {
    let Bound { driver, node, .. } = bound;
    let mode = match bound.kind {
        CdevKind::Noiommu => "no IOMMU stands before it",
        CdevKind::Iommu => "behind an IOMMU",
    };
    let how = match (&bound.before, bound.already) {
        (_, true) => format!("already bound to {driver}"),
        (Some(before), false) => format!("bound to {driver}, taken from {before}"),
        (None, false) => format!("bound to {driver}; no driver had it"),
    };
    format!("{how}; {node}, {mode}")
}

fn tell_unbound(unbound: &Unbound) -> String {
    match (&unbound.before, &unbound.driver) {
        (Some(before), Some(driver)) => format!("taken from {before}, {driver} has it again"),
        (Some(before), None) => format!("taken from {before}; no driver claims it"),
        (None, Some(driver)) => format!("{driver} has it already"),
        (None, None) => "no driver has it already".to_owned(),
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn what_was_done_is_told_apart_from_what_was_so() {
        let mut bound = Bound {
            driver: "vfio-pci".into(),
            before: Some("nvme".into()),
            already: false,
            node: "/dev/vfio/devices/noiommu-vfio0".into(),
            kind: CdevKind::Noiommu,
        };
        assert_eq!(
            tell_bound(&bound),
            "bound to vfio-pci, taken from nvme; /dev/vfio/devices/noiommu-vfio0, no IOMMU stands \
             before it"
        );
        bound.already = true;
        assert!(tell_bound(&bound).starts_with("already bound"));
        let mut unbound = Unbound {
            driver: Some("nvme".into()),
            before: Some("vfio-pci".into()),
        };
        assert_eq!(
            tell_unbound(&unbound),
            "taken from vfio-pci, nvme has it again"
        );
        unbound.before = None;
        assert_eq!(tell_unbound(&unbound), "nvme has it already");
    }
}
