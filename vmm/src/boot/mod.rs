//! Getting a kernel into guest memory and telling it what it needs to know.

pub mod bzimage;
pub(crate) mod command_line;
pub mod elf;
pub(crate) mod files;
mod foreign;
pub mod kernel;
pub(crate) mod low_memory;
pub mod params;
pub mod place;
mod pvh;
pub mod release;
pub mod start_info;
