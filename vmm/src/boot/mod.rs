//! Getting a kernel into guest memory and telling it what it needs to know.

pub mod bzimage;
pub mod params;
pub mod place;
