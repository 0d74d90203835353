// SPDX-License-Identifier: Apache-2.0 OR BSD-3-Clause

//! Direction of a transfer.

use serde::Deserialize;

/// Which way data goes.
#[derive(Clone, Copy, Debug, Deserialize, PartialEq, Eq, Hash)]
#[serde(rename_all = "kebab-case")]
pub enum Direction {
    /// From the device to memory.
    ToMemory,
    /// From memory to the device.
    FromMemory,
    /// From memory to memory.
    MemoryToMemory,
}
