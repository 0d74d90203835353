// SPDX-License-Identifier: Apache-2.0 OR BSD-3-Clause

//! The stages from a [`Config`](crate::config::Config) to a running guest. Each stage is a type that
//! consumes the previous one, so no stage can be skipped or run early. If a stage fails, everything
//! that exists by then is released in the order of [`teardown`](crate::teardown).
//!
//! | stage | question |
//! |---|---|
//! | [`inspect`] | Is the run possible? Nothing is changed. |
//! | [`open_kvm`] | Is KVM available and sufficient? |
//! | [`bind`] | Are the devices bound, reset and quiet? |
//! | [`pin`](mod@pin) | Is memory pinned, and where? |
//! | [`plan`](mod@plan) | Where is everything in the guest? |
//! | [`map`] | Is memory at the addresses that devices and guest use? |
//! | [`load`] | Which boot data is in it? |
//! | [`start`](mod@start) | Does it run? |
//!
//! Two processes can share the stages: one with privilege binds and pins ([`hand_over`]), and one without it goes on from
//! there ([`take_over`]).

mod bind;
mod hand_over;
mod inspect;
mod load;
mod map;
mod open_kvm;
mod pin;
mod plan;
pub mod report;
mod start;
mod take_over;
#[cfg(test)]
mod tests;
mod warnings;

use std::sync::Arc;

use crate::bus::synthetic::SyntheticMachine;
use crate::config::ValidConfig;
use crate::confine::Confinement;
use crate::error::Error;
use crate::handover::Socket;
use crate::kvm::vm::Vm;
use crate::memory::layout::Layout;
use crate::run::console::Console;
use crate::run::timings::Timings;
use crate::run::vmm::Vmm;
use inspect::Inspected;
use open_kvm::open_vm;
use pin::Pinned;
use report::Plan;

pub use bind::BindStageError;
pub use hand_over::{HandedOver, Prepared};
pub use inspect::InspectError;
pub(crate) use plan::{Planned, kept_slots};

/// What a guest runs on in place of the host's own: nothing by default.
#[derive(Debug, Default)]
pub struct Harness<'a> {
    /// Where RAM goes, if not where the configuration says: the harm of another layout is to be shown.
    pub layout: Option<&'a dyn Layout>,
    /// Software in place of devices and of physical memory.
    pub machine: Option<Box<dyn SyntheticMachine>>,
    /// Devices and memory of another process, which are bound and pinned.
    pub handover: Option<Socket>,
}

/// Starts the guest of `config`.
///
/// # Errors
/// [`Error`]; everything has been released by then.
pub(crate) fn start(
    config: &ValidConfig,
    harness: Harness<'_>,
    console: &mut Console,
    confinement: &Confinement,
    timings: &mut Timings,
) -> Result<Vmm, Error> {
    let (pinned, vm) = pin(config, harness, timings)?;
    let planned = pinned.plan(vm)?;
    timings.done("plan");
    for warning in planned.warnings()? {
        log::warn!("{warning}");
    }
    let mapped = planned.map()?;
    timings.done("map");
    let loaded = mapped.load()?;
    timings.done("load");
    let vmm = loaded.start(console, confinement)?;
    timings.done("start");
    Ok(vmm)
}

/// The stages up to the one in which memory is pinned, in this process or in the one that hands over.
fn pin<'a>(
    config: &'a ValidConfig,
    mut harness: Harness<'a>,
    timings: &mut Timings,
) -> Result<(Pinned<'a>, Arc<Vm>), Error> {
    if let Some(socket) = harness.handover.take() {
        let pinned = Pinned::take_over(config, harness.layout, socket)?;
        timings.done("take over");
        let vm = open_vm(&pinned.guest)?;
        timings.done("open KVM");
        return Ok((pinned, vm));
    }
    let inspected = Inspected::new(config, harness)?;
    timings.done("inspect");
    let (opened, vm) = inspected.open_kvm()?;
    timings.done("open KVM");
    let bound = opened.bind()?;
    timings.done("bind");
    let pinned = bound.pin()?;
    timings.done("pin");
    Ok((pinned, vm))
}

/// Plans the guest of `config`: goes through the stages up to the one that decides where everything is, and gives
/// everything back. Returns the plan, and why the guest cannot be booted, if so.
///
/// # Errors
/// [`Error`]
pub fn plan(config: &ValidConfig) -> Result<(Plan, Option<Error>), Error> {
    let inspected = Inspected::new(config, Harness::default())?;
    let (opened, vm) = inspected.open_kvm()?;
    let planned = opened.bind()?.pin()?.plan(vm)?;
    let plan = report::plan(&planned);
    let obstacle = planned.take_apart()?;
    Ok((plan?, obstacle))
}
