// SPDX-License-Identifier: Apache-2.0 OR BSD-3-Clause

//! Which interrupts of a PCI function the host supports, as far as visible before it is opened.

use address::Bdf;

use crate::facts::kernel::command_line;
use crate::sys_root::SysRoot;

/// Why the host serves a device neither MSI nor MSI-X.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(crate) enum NoMessages {
    /// The kernel was booted with `pci=nomsi`.
    CommandLine,
    /// The file `msi_bus` of this function, the device or a bridge above it, is 0.
    MsiBus(Bdf),
}

/// Whether no MSI and MSI-X of the device can be served, as far as that shows before it is opened
/// (drivers/pci/msi/msi.c `pci_msi_supported`).
pub(crate) fn no_messages(root: &SysRoot, bdf: Bdf) -> Option<NoMessages> {
    let command_line = command_line(root);
    let options = command_line.iter();
    let mut options = options.filter_map(|word| word.strip_prefix("pci="));
    if options.any(|list| list.split(',').any(|option| option == "nomsi")) {
        return Some(NoMessages::CommandLine);
    }
    let mut place = Some(bdf);
    while let Some(function) = place {
        if root.word(format!("sys/bus/pci/devices/{function}/msi_bus")) == "0" {
            return Some(NoMessages::MsiBus(function));
        }
        place = root.pci().parent(function);
    }
    None
}
