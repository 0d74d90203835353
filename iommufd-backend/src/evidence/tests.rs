// SPDX-License-Identifier: Apache-2.0 OR BSD-3-Clause

//! The order of an end, with each step failing in turn.

use std::sync::{Arc, Barrier, Mutex};

use pci_config::regs::{CAPABILITIES, STATUS, STATUS_CAPABILITIES};

use super::*;
use crate::operation::Operation;

const MASTER: u16 = 4;
/// Where the function below has its power management capability.
const POWER: u16 = 0x40;

/// A function that notes what happens to it.
#[derive(Debug)]
pub struct Fake {
    bdf: Bdf,
    command: Mutex<u16>,
    power: Mutex<u16>,
    /// Bus mastering comes back with a reset, as a reset in D3hot brings it.
    returns: bool,
    /// It ignores writes to COMMAND.
    stuck: bool,
    refuses_reset: bool,
    /// Its reset ends only once as many others wait here.
    waits_for: Option<Arc<Barrier>>,
    steps: Mutex<Vec<&'static str>>,
}

pub fn fake(function: u8) -> Fake {
    Fake {
        bdf: Bdf::new(0, 1, 0, function).unwrap(),
        command: Mutex::new(MASTER | 2),
        power: Mutex::new(3),
        returns: false,
        stuck: false,
        refuses_reset: false,
        waits_for: None,
        steps: Mutex::default(),
    }
}

impl Fake {
    /// Whether anything happened to it.
    pub fn was_touched(&self) -> bool {
        !self.steps.lock().unwrap().is_empty()
    }

    fn step(&self, step: &'static str) {
        self.steps.lock().unwrap().push(step);
    }

    fn was_reset(&self, step: &'static str) -> Result<(), Error> {
        self.step(step);
        if let Some(others) = &self.waits_for {
            others.wait();
        }
        if self.refuses_reset {
            return Err(Error::Device {
                bdf: self.bdf,
                operation: Operation::Reset,
                source: std::io::Error::from_raw_os_error(libc::EAGAIN),
            });
        }
        if self.returns {
            *self.command.lock().unwrap() |= MASTER;
        }
        Ok(())
    }
}

impl ConfigSpace for Fake {
    fn bdf(&self) -> Bdf {
        self.bdf
    }

    fn config_word(&self, offset: u16) -> Result<u16, Error> {
        Ok(match offset {
            COMMAND => *self.command.lock().unwrap(),
            STATUS => STATUS_CAPABILITIES,
            CAPABILITIES => POWER,
            POWER => CAP_PM.into(),
            offset if offset == POWER + PM_CONTROL => *self.power.lock().unwrap(),
            _ => 0,
        })
    }

    fn set_config_word(&self, offset: u16, value: u16) -> Result<(), Error> {
        if offset == COMMAND {
            let master = value & MASTER != 0;
            self.step(if master { "master" } else { "no master" });
            if !self.stuck {
                *self.command.lock().unwrap() = value;
            }
        } else {
            self.step("power");
            *self.power.lock().unwrap() = value;
        }
        Ok(())
    }
}

impl Resettable for Fake {
    fn reset(&self) -> Result<(), Error> {
        self.was_reset("reset")
    }

    fn reset_bus(&self) -> Result<(), Error> {
        self.was_reset("reset bus")
    }
}

fn flr() -> ResetMethod {
    ResetMethod::Function("flr".into())
}

fn end(function: &Fake, method: &ResetMethod) -> Result<Quiet, Error> {
    quiesce(&[(function, method)]).pop().unwrap()
}

#[test]
fn power_then_bus_mastering_then_reset_then_bus_mastering_again() {
    let function = Fake {
        returns: true,
        ..fake(0)
    };
    let quiet = end(&function, &flr()).unwrap();
    assert_eq!(quiet.bdf(), function.bdf);
    assert_eq!(*quiet.because(), Because::Reset("flr".into()));
    let steps = ["power", "no master", "reset", "no master"];
    assert_eq!(*function.steps.lock().unwrap(), steps);
    assert_eq!(*function.power.lock().unwrap(), 0);
    assert_eq!(*function.command.lock().unwrap(), 2);
}

#[test]
fn any_step_that_fails_leaves_no_evidence() {
    let stuck = Fake {
        stuck: true,
        ..fake(0)
    };
    let text = end(&stuck, &flr()).unwrap_err().to_string();
    assert!(text.contains("bus mastering cannot be disabled"), "{text}");
    // It is reset nevertheless.
    assert!(stuck.steps.lock().unwrap().contains(&"reset"));

    let refuses = Fake {
        refuses_reset: true,
        ..fake(0)
    };
    assert!(end(&refuses, &flr()).is_err());

    // All ones are not evidence that the device is gone.
    let silent = fake(0);
    *silent.command.lock().unwrap() = u16::MAX;
    let text = end(&silent, &flr()).unwrap_err().to_string();
    assert!(text.contains("does not respond"), "{text}");
}

#[test]
fn a_device_without_a_reset_is_quiet_only_as_accepted() {
    let none = ResetMethod::None { others: vec![] };
    let quiet = end(&fake(0), &none).unwrap();
    assert_eq!(*quiet.because(), Because::Accepted);
    let stuck = Fake {
        stuck: true,
        ..fake(0)
    };
    assert!(end(&stuck, &none).is_err());
}

#[test]
fn a_bus_is_reset_once_when_all_on_it_are_stopped() {
    let (first, second) = (fake(0), fake(1));
    let bus = ResetMethod::Bus {
        functions: vec![first.bdf, second.bdf],
        instead_of: None,
    };
    let results = quiesce(&[(&first, &bus), (&second, &bus)]);
    assert!(results.iter().all(Result::is_ok));
    assert!(first.steps.lock().unwrap().contains(&"reset bus"));
    assert!(!second.steps.lock().unwrap().contains(&"reset bus"));

    let first = Fake {
        refuses_reset: true,
        ..fake(0)
    };
    let results = quiesce(&[(&first, &bus), (&fake(1), &bus)]);
    assert!(results.iter().all(Result::is_err), "{results:?}");
}

#[test]
fn devices_are_reset_at_once_and_buses_before_single_functions() {
    let all = Some(Arc::new(Barrier::new(2)));
    let [first, second] = [0, 1].map(|number| Fake {
        waits_for: all.clone(),
        ..fake(number)
    });
    let results = quiesce(&[(&first, &flr()), (&second, &flr())]);
    assert!(results.iter().all(Result::is_ok), "{results:?}");

    let bus = |number| ResetMethod::Bus {
        functions: vec![fake(number).bdf],
        instead_of: None,
    };
    let results = quiesce(&[(&first, &bus(0)), (&second, &bus(1))]);
    assert!(results.iter().all(Result::is_ok), "{results:?}");
}

#[test]
fn the_function_that_resets_a_bus_reports_why_it_failed() {
    let refusing = |number| Fake {
        refuses_reset: true,
        ..fake(number)
    };
    let (first, second, other) = (refusing(0), refusing(1), fake(2));
    let bus = ResetMethod::Bus {
        functions: vec![first.bdf, second.bdf],
        instead_of: None,
    };
    let results = quiesce(&[(&other, &flr()), (&first, &bus), (&second, &bus)]);
    assert!(results[0].is_ok());
    assert!(matches!(results[1], Err(Error::Device { .. })));
    assert!(matches!(results[2], Err(Error::DeviceUnusable { .. })));
    assert!(!second.steps.lock().unwrap().contains(&"reset bus"));
}
