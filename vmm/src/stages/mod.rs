//! From a [`Config`] to a running guest: one type for each stage, made of the one before, so that no stage can be
//! left out or taken early. An error gives back what there is by then, in the order of [`teardown`](crate::teardown).
//!
//! | stage | question |
//! |---|---|
//! | [`inspect`] | Can this run at all? Nothing is touched. |
//! | [`open_kvm`] | Is there a KVM that serves? |
//! | [`bind`] | Are the devices bound, reset and quiet? |
//! | [`pin`] | Is there memory, pinned, and where? |
//! | [`plan`] | Where is everything in the guest? |
//! | [`map`] | Is memory where devices and guest expect it? |
//! | [`load`] | What does the kernel find in it? |
//! | [`start`](mod@start) | Does it run? |

mod bind;
mod inspect;
mod load;
mod map;
mod open_kvm;
mod pin;
mod plan;
mod start;
#[cfg(test)]
mod tests;
mod warnings;

use crate::config::Config;
use crate::error::Error;
use crate::memory::layout::Layout;
use crate::run::console::Console;
use crate::run::timings::Phases;
use crate::run::vmm::Vmm;

pub(crate) use inspect::{Inspected, profile};
pub(crate) use plan::{Planned, SLOTS_PER_DEVICE};

/// Starts the guest of `config`. `identity` is the layout for devices that use physical addresses.
///
/// # Errors
/// [`Error`]; everything was given back by then.
pub(crate) fn start(
    config: &Config,
    identity: &dyn Layout,
    console: &mut Console,
    phases: &mut Phases,
) -> Result<Vmm, Error> {
    let inspected = Inspected::new(config, identity)?;
    phases.done("inspect");
    let opened = inspected.open_kvm()?;
    phases.done("open KVM");
    let bound = opened.bind()?;
    phases.done("bind");
    let pinned = bound.pin()?;
    phases.done("pin");
    let planned = pinned.plan()?;
    phases.done("plan");
    for warning in planned.warnings()? {
        log::warn!("{warning}");
    }
    let mapped = planned.map()?;
    phases.done("map");
    let loaded = mapped.load()?;
    phases.done("load");
    let vmm = loaded.start(console)?;
    phases.done("start");
    Ok(vmm)
}
