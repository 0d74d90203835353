// SPDX-License-Identifier: Apache-2.0 OR BSD-3-Clause

//! The guest's power button, which requests a power-off.

use std::sync::Arc;
use std::sync::atomic::{AtomicBool, Ordering};

use crate::arch::layout::POWER_BUTTON_GSI;
use crate::kvm::irq::{Interrupts, IrqError};

/// The power button.
#[derive(Debug)]
pub struct PowerButton {
    interrupts: Arc<Interrupts>,
    pressed: AtomicBool,
}

/// What a press did.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Press {
    /// The guest's handler was notified, and may ignore it.
    Heard,
    /// The guest has no handler for it: it does not use ACPI, not yet, or no more.
    Unheard,
}

impl PowerButton {
    /// The button of the machine with these interrupts.
    pub fn new(interrupts: Arc<Interrupts>) -> Self {
        Self {
            interrupts,
            pressed: AtomicBool::new(false),
        }
    }

    /// Presses the button.
    ///
    /// # Errors
    /// [`IrqError::Refused`]
    pub fn press(&self) -> Result<Press, IrqError> {
        self.pressed.store(true, Ordering::SeqCst);
        if !self.interrupts.is_handled(POWER_BUTTON_GSI)? {
            return Ok(Press::Unheard);
        }
        self.interrupts.pulse(POWER_BUTTON_GSI)?;
        Ok(Press::Heard)
    }

    /// Whether it was pressed.
    #[must_use]
    pub fn was_pressed(&self) -> bool {
        self.pressed.load(Ordering::SeqCst)
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::kvm::vm::Vm;

    #[test]
    fn a_guest_without_a_handler_does_not_hear_it() {
        let Ok(vm) = Vm::new() else {
            eprintln!("skipped: no /dev/kvm");
            return;
        };
        let button = PowerButton::new(Interrupts::new(vm).unwrap());
        assert!(!button.was_pressed());
        assert_eq!(button.press().unwrap(), Press::Unheard);
        assert!(button.was_pressed());
    }
}
