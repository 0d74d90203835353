// SPDX-License-Identifier: Apache-2.0 OR BSD-3-Clause

//! A guest, its controller, and a device that does all that hardware may do.

#![expect(clippy::unwrap_used, reason = "a test")]

mod events;
mod flow;
mod hostile;
mod life;
mod order;
mod queues;
mod registers;
mod stop;
