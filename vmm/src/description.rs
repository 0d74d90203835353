//! What a machine looks like, for whoever reports about it.

use std::ops::Range;

use address::{Gpa, Hpa};

use crate::memory::plan::{MemoryPlan, RamSlot};

/// Where things are in a machine.
#[derive(Clone, Debug)]
pub struct Description {
    /// Guest RAM above the first MiB, ascending.
    pub ram: Vec<RamSlot>,
    /// Memory BARs, each with its device's name.
    pub bars: Vec<(String, Range<Gpa>)>,
    /// The kernel's own memory.
    pub kernel: Range<Gpa>,
}

impl Description {
    /// Describes a machine with `plan`. The BARs stand where the host has them.
    #[must_use]
    pub fn new(plan: &MemoryPlan, bars: Vec<(String, Range<Hpa>)>, kernel: Range<Gpa>) -> Self {
        let identity = |range: Range<Hpa>| Gpa(range.start.0)..Gpa(range.end.0);
        Self {
            ram: plan.slots().to_vec(),
            bars: bars
                .into_iter()
                .map(|(name, range)| (name, identity(range)))
                .collect(),
            kernel,
        }
    }
}
