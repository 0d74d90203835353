// SPDX-License-Identifier: Apache-2.0 OR BSD-3-Clause

//! MSI-X.

use pci_config::regs::{CAP_MSIX, MSIX_ENABLE, MSIX_FUNCTION_MASK};
use pci_config::{InterruptKind, find_capability};

use crate::pci::access::DwordWrite;
use crate::pci::{
    BarKind, Bars, MAX_VECTORS, MsiMessage, Msix, MsixLayout, Placement, control_write,
};

use super::super::report::Reporter;
use super::capability::{Device, Found, MessageCapability, Part, Structure, Written};

/// The MSI-X structures of the device.
#[derive(Debug)]
struct MsixCapability {
    /// Where they are. Trapped whether or not the guest gets MSI-X.
    structures: [Structure; 2],
    /// What the guest programs; `None` if it does not get MSI-X.
    state: Option<Msix>,
}

/// As the device's capability has it, if it has one.
pub(super) fn find(device: Device<'_>, reporter: &mut Reporter) -> Found {
    let Device { info, config, bars } = device;
    let Ok(capability) = find_capability(config, CAP_MSIX);
    let at = usize::from(capability? / 4);
    let dwords = config.get(at..at + 3)?;
    let layout = MsixLayout::parse([dwords[0], dwords[1], dwords[2]]);
    let granted = info.interrupts[InterruptKind::Msix].count;
    let vectors = layout.vectors.min(granted).min(MAX_VECTORS);
    // The pending bits are not searched: some devices (Chelsio's T5 VFs, Baidu's Kunlun) report
    // that they are behind the end of their BAR, where no driver reads them.
    let placed = is_inside(&layout.table, bars);
    if vectors != 0 && !placed {
        reporter.warn(format_args!(
            "MSI-X is hidden from the guest: its table is not in a memory BAR"
        ));
    }
    let structure = |place, part| Structure { place, part };
    Some(Box::new(MsixCapability {
        structures: [
            structure(layout.table, Part::Table),
            structure(layout.pending, Part::Pending),
        ],
        state: (vectors != 0 && placed).then(|| Msix::new(vectors)),
    }))
}

fn is_inside(placement: &Placement, bars: &Bars) -> bool {
    bars.get(placement.bar)
        .is_some_and(|bar| bar.kind() != BarKind::Io && placement.range.end <= bar.size())
}

impl MessageCapability for MsixCapability {
    fn kind(&self) -> InterruptKind {
        InterruptKind::Msix
    }

    fn is_offered(&self) -> bool {
        self.state.is_some()
    }

    fn is_enabled(&self) -> bool {
        self.state.as_ref().is_some_and(Msix::is_enabled)
    }

    fn vectors(&self) -> u16 {
        self.state.as_ref().map_or(0, Msix::vectors)
    }

    fn message(&self, vector: u16) -> Option<MsiMessage> {
        self.state.as_ref()?.message(vector)
    }

    /// Header and Message Control; where the structures are is read from the device's.
    fn length(&self) -> u16 {
        4
    }

    fn read(&self, _: u16, _: &mut dyn FnMut(u16) -> bool) -> u32 {
        let control = self.state.as_ref().map_or(0, Msix::control);
        u32::from(control) << 16
    }

    /// Where MSI-X is on and masked at once, the guest restores its registers, as Linux does after a reset of the
    /// device's own (drivers/pci/msi/msi.c `__pci_restore_msix_state`).
    fn write(&mut self, write: DwordWrite) -> Written {
        let Some(msix) = &mut self.state else {
            return Written::Changed;
        };
        let before = msix.control();
        msix.set_control(control_write(msix, write));
        let set = msix.control() & !before;
        let is_restored = before & MSIX_ENABLE != 0 && set & MSIX_FUNCTION_MASK != 0;
        match is_restored && msix.is_enabled() {
            true => Written::Restored {
                enable: MSIX_ENABLE,
            },
            false => Written::Changed,
        }
    }

    fn reset(&mut self) {
        if let Some(msix) = &mut self.state {
            msix.reset();
        }
    }

    fn structures(&self) -> &[Structure] {
        &self.structures
    }

    fn read_table(&self, offset: u64, data: &mut [u8]) {
        match &self.state {
            Some(msix) => msix.read_table(offset, data),
            None => data.fill(0xff),
        }
    }

    fn write_table(&mut self, offset: u64, data: &[u8]) -> Option<u16> {
        self.state.as_mut()?.write_table(offset, data)
    }
}
