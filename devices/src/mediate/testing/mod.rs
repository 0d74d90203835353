//! A mediated DMA engine whose device trusts no store, a plain model of what its guest sees, and
//! drivers of random operations. For tests and fuzzing.

#![expect(
    clippy::cast_possible_truncation,
    reason = "lengths and offsets are small, and register values are cut on purpose"
)]

pub mod generated;
mod host;
mod input;
mod memory;
mod model;
pub mod operations;
pub mod profiles;
mod rig;

pub use host::EduHost;
pub use memory::GuestMemory;
pub use rig::{Bus, Rig};
