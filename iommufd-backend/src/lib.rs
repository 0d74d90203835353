//! The kernel side.

pub mod backend;
pub mod extent;
