// SPDX-License-Identifier: Apache-2.0 OR BSD-3-Clause

//! The monitor's data: what ran where, and how it ended.

use address::{Gpa, Hpa, Iova};
use serde::{Deserialize, Serialize};

use crate::mediated::Mediated;
use crate::serialize::hex;
use crate::text::Text;

/// What ran, and where everything lay. What is not known is left empty.
#[derive(Clone, Debug, Default, PartialEq, Eq, Serialize, Deserialize)]
pub struct Setup {
    /// Version of the monitor.
    pub monitor: Text,
    /// Release of the host's kernel.
    pub host_kernel: Text,
    /// The monitor's own command line.
    pub command_line: Text,
    /// The guest's command line.
    pub guest_command_line: Text,
    /// The backend of physical addresses: `noiommu`, `software`, …
    pub backend: Text,
    /// RAM that devices may reach.
    pub extents: Vec<Extent>,
    /// Device memory.
    pub bars: Vec<Bar>,
    /// Anything else that is worth a mark on the map: the kernel's image, low memory.
    pub landmarks: Vec<Landmark>,
}

/// A piece of guest RAM that is contiguous on the host.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Serialize, Deserialize)]
pub struct Extent {
    /// Where the guest sees it.
    #[serde(with = "hex")]
    pub gpa: Gpa,
    /// Where it is.
    #[serde(with = "hex")]
    pub hpa: Hpa,
    /// Bytes.
    pub len: u64,
}

impl Extent {
    /// Whether the guest sees it where it is.
    #[must_use]
    pub fn is_identity(&self) -> bool {
        self.gpa.0 == self.hpa.0
    }
}

/// A memory BAR.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
pub struct Bar {
    /// Device and number, for instance `00:01.0 BAR0`.
    pub name: Text,
    /// Where the guest sees it.
    #[serde(with = "hex")]
    pub gpa: Gpa,
    /// Bytes.
    pub len: u64,
}

/// A named range of guest-physical addresses.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
pub struct Landmark {
    /// What is there.
    pub name: Text,
    /// Where the guest sees it.
    #[serde(with = "hex")]
    pub gpa: Gpa,
    /// Bytes.
    pub len: u64,
}

/// How it ended, as the monitor saw it.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
pub struct Outcome {
    /// The byte that the guest wrote as its status: 0 all passed, 1 something failed, 2 nothing
    /// to test. `None` if it wrote none.
    pub status: Option<u8>,
    /// Why the guest no longer runs.
    pub ending: Ending,
    /// What the software DMA engine refused.
    pub refusals: Refusals,
    /// What the monitor did with the transfers of each device whose DMA it mediates.
    #[serde(default)]
    pub mediated: Vec<Mediated>,
    /// Milliseconds from the guest's first instruction to its end; 0 if not known.
    pub duration_ms: u64,
}

impl Outcome {
    /// An end without refusals and of unknown duration.
    #[must_use]
    pub fn new(status: Option<u8>, ending: Ending) -> Self {
        Self {
            status,
            ending,
            refusals: Refusals::default(),
            mediated: Vec::new(),
            duration_ms: 0,
        }
    }
}

/// Why a guest no longer runs.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
#[serde(rename_all = "kebab-case", tag = "kind", content = "text")]
pub enum Ending {
    /// It powered itself off.
    PoweredOff,
    /// It requested a restart.
    Reset,
    /// It could not continue: a triple fault, an access without a device, … and which.
    Crashed(Text),
    /// The monitor ended it: a signal, a time limit, an error on the host, … and which.
    Stopped(Text),
}

/// DMA that did not take place because it would have left the guest's memory.
#[derive(Clone, Debug, Default, PartialEq, Eq, Serialize, Deserialize)]
pub struct Refusals {
    /// How often.
    pub count: u64,
    /// The last ones, oldest first; more than 64 are left out of a report.
    pub last: Vec<Refusal>,
}

/// One of them.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Serialize, Deserialize)]
pub struct Refusal {
    /// The address that the guest gave to the device.
    #[serde(with = "hex")]
    pub address: Iova,
    /// Bytes of the transfer.
    pub len: u64,
}
