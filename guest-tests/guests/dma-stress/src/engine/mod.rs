// SPDX-License-Identifier: Apache-2.0 OR BSD-3-Clause

//! What moves data.

pub mod edu;
pub mod nvme;

use alloc::string::String;
use alloc::vec::Vec;

use address::Gpa;
use stress_format::{FindingKind, Interrupt};

use crate::shape::Limits;

/// Which way.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Direction {
    /// The device reads memory.
    ToDevice,
    /// The device writes memory.
    FromDevice,
}

/// One transfer.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Transfer {
    /// Which way.
    pub direction: Direction,
    /// The buffer in memory.
    pub gpa: Gpa,
    /// First byte on the device's side.
    pub device: u64,
    /// Bytes.
    pub len: u64,
}

/// How a transfer ended.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub struct Outcome {
    /// TSC ticks that it took.
    pub ticks: u64,
    /// What went wrong other than the data. The transfer counts as ended for a lost interrupt
    /// and a device's error, and as under way forever for a timeout.
    pub problem: Option<(FindingKind, &'static str)>,
}

/// A device that moves data between memory and itself.
pub trait Engine {
    /// What it can do.
    fn limits(&self) -> Limits;

    /// Ways to signal completion.
    fn kinds(&self) -> Vec<Interrupt>;

    /// Uses one of them from now on.
    ///
    /// # Errors
    /// Why it cannot.
    fn select(&mut self, kind: Interrupt) -> Result<(), &'static str>;

    /// The device's own report of failed transfers since the last call.
    fn complaint(&mut self) -> Option<String> {
        None
    }

    /// Runs transfers, up to [`Limits::depth`] of them at once, and adds an outcome for each, in
    /// their order. No two of them share a byte on either side.
    fn run(&mut self, transfers: &[Transfer], outcomes: &mut Vec<Outcome>);
}
