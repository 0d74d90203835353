// SPDX-License-Identifier: Apache-2.0 OR BSD-3-Clause

//! The core: commands and data, without queues or registers.

#![expect(clippy::panic, clippy::unwrap_used, reason = "a test")]

mod admin;
mod bounce;
mod commands;
mod patch;
mod prp;
