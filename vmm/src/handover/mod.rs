// SPDX-License-Identifier: Apache-2.0 OR BSD-3-Clause

//! How a privileged process passes devices and pinned memory to the unprivileged process that runs the guest
//! (docs/reference/handover.md).
//!
//! The sender has gone through the stages up to `pin`, and the receiver goes on from there. All that the
//! receiver gets is one packet through a Unix socket: a header, and open files beside it, of which the first holds the
//! state and is sealed. Nothing of it is believed that can be checked.
//!
//! | file | question |
//! |---|---|
//! | `state` | What is passed? |
//! | `packet` | How is it sent and received? |
//! | `listener` | How does a receiver find a sender that is not its launcher? |
//! | `check` | Is it consistent, and does it fit the options of this run? |
//! | `files` | Are its files what they should be? |
//! | `page_view` | Who shows the receiver where its pages are? |
//! | `error` | What is wrong with it? |

mod check;
mod error;
mod files;
mod listener;
mod packet;
mod page_view;
pub(crate) mod state;

pub(crate) use check::{check, extents};
pub use error::{HandoverError, Refusal};
pub(crate) use files::Files;
pub(crate) use listener::{Listener, Receiver};
pub use packet::Socket;
pub(crate) use packet::{Packet, send};
pub(crate) use page_view::PageView;
pub use page_view::help;
