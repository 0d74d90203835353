//! The guest's CPU as it stands before its first instruction.

pub mod cpuid;
pub mod entry;
pub mod page_tables;
pub mod reset_vector;
