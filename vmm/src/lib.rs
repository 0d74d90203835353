//! Policy and KVM: from what the user wants to a running guest, and back.
//!
//! [`run`] is the story. Data flows one way: [`config::Config`] -> devices bound to `/dev/iommu`
//! -> guest memory pinned -> its physical extents -> a [`memory::plan::MemoryPlan`] -> memslots,
//! boot data and PCI functions -> vCPUs -> [`machine::Machine::tear_down`].

pub mod acpi;
pub mod arch;
pub mod boot;
mod bound;
mod builder;
pub mod cli;
pub mod config;
mod console;
pub mod description;
mod error;
mod event_loop;
mod eventfd;
pub mod exit;
pub mod host_map;
pub mod kvm;
pub mod machine;
pub mod memory;
pub mod passthrough;
mod pinned;
mod software;
pub mod stress;
mod topology;
mod watch;
mod window;

pub use error::Error;
pub use memory::layout::{Conventional, Identity, Layout, Swapped};

use std::time::{Duration, Instant};

use config::Config;
use console::Console;
use description::Description;
use exit::ExitReason;
use software::Refusals;

/// Runs the microVM that `config` describes until it ends. Where devices use physical addresses,
/// its RAM is placed by `layout`: [`Identity`], unless the harm of another one is to be shown.
///
/// # Errors
/// [`Error`]; what was set up is torn down by then, devices first.
pub fn run(config: &Config, layout: &dyn Layout) -> Result<(), Error> {
    let console = Console::open(&config.serial)?;
    if let Some(path) = console.path() {
        eprintln!("pinvisor: the guest's serial port is {}", path.display());
    }
    let ended = launch(config, layout, (console, None))?;
    event_loop::outcome(ended.reason)?;
    ended.torn_down
}

/// How a guest ended, and what it ran on.
#[derive(Debug)]
struct Ended {
    reason: ExitReason,
    torn_down: Result<(), Error>,
    description: Description,
    refusals: Refusals,
}

/// Runs a microVM on `console` until it ends, for at most `limit`.
fn launch(
    config: &Config,
    layout: &dyn Layout,
    (mut console, limit): (Console, Option<Duration>),
) -> Result<Ended, Error> {
    let began = Instant::now();
    let mut machine = builder::build(config, layout, &mut console)?;
    let ended = event_loop::run(&mut machine, &mut console, limit);
    let refusals = match (&machine.software, &machine.engine) {
        (Some(software), Some(engine)) => software.refusals(engine),
        _ => Refusals::default(),
    };
    let torn_down = machine.tear_down();
    if let Some(first) = console.first_output() {
        let after = first.duration_since(began).as_millis();
        log::info!("The guest printed something first after {after} ms");
    }
    Ok(Ended {
        reason: ended?,
        torn_down,
        description: machine.description.clone(),
        refusals,
    })
}

/// The low and the high 32 bits.
fn halves(value: u64) -> (u32, u32) {
    #[expect(clippy::cast_possible_truncation, reason = "the low half is wanted")]
    let low = value as u32;
    let high = (value >> 32) as u32;
    (low, high)
}
