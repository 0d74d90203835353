//! Guest memory: how it is laid out, described to the guest and mapped.

mod candidates;
pub mod choice;
pub mod e820;
pub mod guest;
pub mod layout;
pub mod low;
pub mod moved;
pub mod overhead;
pub mod pieces;
pub mod plan;
pub mod table;
