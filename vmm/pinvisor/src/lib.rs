//! The program `pinvisor`: its command line, and what a run reports.

pub mod cli;
pub mod config;
mod error;
pub mod events;
pub mod fatal;
pub mod logging;
pub mod pidfile;
mod plan;
mod run;
mod run_context;
mod screen;
pub mod stress;

pub use error::Error;
pub use plan::run as plan;
pub use run::run;
pub use run_context::RunContext;
pub use screen::say;

/// The version, with the commit where it is known.
pub const VERSION: &str = env!("PINVISOR_VERSION");
