// SPDX-License-Identifier: Apache-2.0 OR BSD-3-Clause

//! The keeper: a small process that keeps guest memory pinned as long as a device may write to it.
//!
//! Without an IOMMU, memory returns to the host only once there is evidence that each device that
//! may access it has ended its DMA ([`iommufd_backend::Quiet`]). The monitor cannot always wait for
//! that: it may be killed, and a device may fail to reset. So it starts a keeper before it binds
//! the first device ([`Keeper::start`]), which holds `/dev/iommu` and the memory's file a second
//! time, and nothing else. Where devices are opened through their groups, which pin nothing, it pins the memory a second
//! time instead ([`Keeper::pin`]). It never holds a device: a second reference to a device's file or to a mapped BAR would keep the
//! kernel from resetting the device when the monitor dies.
//!
//! - The guest has ended and all is quiet: the keeper ends, too ([`Keeper::released`]).
//! - The monitor died: the keeper makes the devices quiet through sysfs, and ends.
//! - The monitor could not make a device quiet: once it has closed it, the keeper does so through sysfs
//!   ([`Keeper::settle`]). A monitor has no privilege for that while its guest runs, nor afterwards.
//! - A device cannot be made quiet, by the monitor ([`Keeper::keep`]) or by the keeper: it stays,
//!   and answers at its own socket ([`find()`]) until it is notified that the device has been reset
//!   ([`release`]).
//!
//! | file | question |
//! |---|---|
//! | `message` | What do they send to each other? |
//! | `channel` | How? |
//! | `start` | How does the monitor start and release a keeper? |
//! | `spawn` | How does a small process of this program start? |
//! | `serve` | What does a keeper do? |
//! | `confine` | What may it do? |
//! | `find` | Which keepers run, and how do they end? |
//! | `code` | What of the program stays mapped while it waits? |

mod channel;
mod code;
mod confine;
mod find;
mod message;
mod serve;
mod spawn;
mod start;

pub use channel::{Channel, MAX_FILES};
pub use code::release_code;
pub use confine::confine;
pub use find::{DIRECTORY, Found, find, open_directory, release};
pub use message::{Kept, Status};
pub use serve::{keep_here, run};
pub use spawn::{PROGRAM, spawn};
pub use start::Keeper;

use std::io;

/// A keeper cannot be started, or does not do its work.
#[derive(Debug, thiserror::Error)]
pub enum KeeperError {
    /// Its process cannot be started.
    #[error(
        "Cannot start the keeper, the process that keeps guest memory pinned if a device cannot be stopped"
    )]
    Start(#[source] io::Error),
    /// It is gone, or does not answer.
    #[error("The keeper, process {pid}, which keeps guest memory pinned, does not respond")]
    Silent {
        /// Its number.
        pid: u32,
        /// What came instead.
        source: io::Error,
    },
    /// It refuses the request, or cannot fulfil it.
    #[error("The keeper, process {pid}, which keeps guest memory pinned, refused: {why}")]
    Refused {
        /// Its number.
        pid: u32,
        /// Why.
        why: String,
    },
    /// It cannot set itself up.
    #[error("Cannot {operation}")]
    Setup {
        /// What was tried, as a verb phrase.
        operation: &'static str,
        /// Why not.
        source: io::Error,
    },
}

/// Makes a [`KeeperError::Setup`] of the error of `operation`, a verb phrase.
fn setup<E: Into<io::Error>>(operation: &'static str) -> impl FnOnce(E) -> KeeperError {
    move |source| KeeperError::Setup {
        operation,
        source: source.into(),
    }
}
