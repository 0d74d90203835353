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
mod topology;
mod watch;

pub use error::Error;
pub use memory::layout::{Conventional, Identity, Layout};

use config::Config;

/// Runs the microVM that `config` describes until it ends. Where devices use physical addresses,
/// its RAM is placed by `layout`: [`Identity`], unless the harm of another one is to be shown.
///
/// # Errors
/// [`Error`]; what was set up is torn down by then, devices first.
pub fn run(config: &Config, layout: &dyn Layout) -> Result<(), Error> {
    let mut console = console::Console::open(&config.serial)?;
    let mut machine = builder::build(config, layout, &mut console)?;
    let ended = event_loop::run(&mut machine, &mut console);
    let torn_down = machine.tear_down();
    ended?;
    torn_down
}

/// The low and the high 32 bits.
fn halves(value: u64) -> (u32, u32) {
    #[expect(clippy::cast_possible_truncation, reason = "the low half is wanted")]
    let low = value as u32;
    let high = (value >> 32) as u32;
    (low, high)
}
