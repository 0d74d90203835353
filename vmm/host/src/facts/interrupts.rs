//! Which interrupts of a PCI function the host serves, as far as that shows before it is opened.

use address::Bdf;

use crate::facts::kernel::command_line;
use crate::sys_root::SysRoot;

/// Why no MSI and MSI-X of the device can be served, as far as that shows before it is opened: the
/// kernel's command line, or the file `msi_bus` of the device or of a bridge above it
/// (drivers/pci/msi/msi.c `pci_msi_supported`).
pub(crate) fn refusal(root: &SysRoot, bdf: Bdf) -> Option<String> {
    let command_line = command_line(root);
    let options = command_line.iter();
    let mut options = options.filter_map(|word| word.strip_prefix("pci="));
    if options.any(|list| list.split(',').any(|option| option == "nomsi")) {
        return Some("the kernel was booted with pci=nomsi".to_owned());
    }
    let mut place = Some(bdf);
    while let Some(function) = place {
        if root.word(format!("sys/bus/pci/devices/{function}/msi_bus")) == "0" {
            return Some(format!("msi_bus of {function} is 0"));
        }
        place = root.pci().parent(function);
    }
    None
}
