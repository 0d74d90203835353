// SPDX-License-Identifier: Apache-2.0 OR BSD-3-Clause

//! The interrupts of a simulated device.

use std::fmt;

use devices::pci::MsiMessage;
use devices::vfio_pci::{InterruptKind, Vectors};

use super::host::State;

impl State {
    pub(super) fn enable(&mut self, kind: InterruptKind, vectors: u16) -> u16 {
        let granted = self.info.interrupts[kind].count;
        let fits = (1..=granted).contains(&vectors);
        self.expect(fits, "more vectors than granted", (kind, vectors));
        let off = self.interrupts.is_none();
        self.expect(off, "enable of what is on", (kind, vectors));
        self.expect_awake((kind, vectors));
        let on = vectors.min(self.most);
        let set = (0..on).map(|vector| (vector, None)).collect();
        self.interrupts = Some((kind, set));
        self.show_msix(kind == InterruptKind::Msix);
        on
    }

    pub(super) fn disable(&mut self) {
        self.expect_awake("off");
        self.interrupts = None;
        self.show_msix(false);
    }

    /// Puts MSI-X Enable into the register that VFIO lets no user write.
    fn show_msix(&mut self, on: bool) {
        if let Some(at) = self.msix_control {
            self.config[at + 1] = self.config[at + 1] & 0x7f | u8::from(on) << 7;
        }
    }

    pub(super) fn expect_awake(&mut self, detail: impl fmt::Debug) {
        let awake = self.in_d0() || self.fault.is_some();
        self.expect(awake, "interrupts of a device outside D0", detail);
    }

    /// False where the host has no such vector.
    pub(super) fn set_vector(&mut self, vector: u16, message: Option<MsiMessage>) -> bool {
        let (known, added) = match &mut self.interrupts {
            Some((kind, set)) if kind.is_message() => {
                let is_on = set.contains_key(&vector);
                let Vectors { count, grows } = self.info.interrupts[*kind];
                let room = grows && message.is_some() && vector < count;
                if !is_on && (!room || set.len() >= self.most.into()) {
                    self.expect(message.is_some(), "vector that is not on", vector);
                    return false;
                }
                set.insert(vector, message);
                (true, !is_on)
            }
            _ => (false, false),
        };
        if added {
            self.expect_awake(vector);
        }
        if message.is_some() {
            self.pending.remove(&vector);
        }
        self.expect(known, "vector that is not on", (vector, message));
        true
    }
}
