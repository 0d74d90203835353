// SPDX-License-Identifier: Apache-2.0 OR BSD-3-Clause

//! A profile as its file has it: names, types and defaults, nothing checked yet.

use serde::Deserialize;

use super::direction;

#[derive(Debug, Deserialize)]
#[serde(deny_unknown_fields)]
pub(super) struct File {
    pub version: u64,
    pub name: String,
    pub descriptors_in_memory: bool,
    pub devices: Vec<Device>,
    pub refusal: RefusalShown,
    #[serde(default)]
    pub open_bars: Vec<u8>,
    pub register: Vec<Register>,
    #[serde(default)]
    pub alias: Vec<Alias>,
    #[serde(default)]
    pub port: Vec<Port>,
    pub transfer: Vec<Transfer>,
}

#[derive(Clone, Copy, Debug, Deserialize, PartialEq, Eq)]
#[serde(deny_unknown_fields)]
pub(in super::super) struct Device {
    pub vendor: u16,
    pub device: u16,
}

/// What the guest sees of a refused start.
#[derive(Clone, Copy, Debug, Deserialize, PartialEq, Eq)]
#[serde(rename_all = "kebab-case")]
pub(in super::super) enum RefusalShown {
    /// Nothing: the store had no effect.
    Drop,
    /// The status register reads as all-ones until a start is accepted or the device is reset.
    AllOnes,
    /// The monitor stops the VM.
    Stop,
}

#[derive(Debug, Deserialize)]
#[serde(deny_unknown_fields)]
pub(super) struct Register {
    pub name: String,
    pub bar: u8,
    pub offset: u64,
    pub width: u8,
    pub high_offset: Option<u64>,
    pub store: Option<u8>,
    #[serde(default)]
    pub high_first: bool,
    #[serde(default)]
    pub read_back: bool,
    pub accesses: Option<Vec<u8>>,
    #[serde(default)]
    pub partial: Partial,
    pub reserved: Option<Reserved>,
    pub writable: Option<u64>,
}

/// What the device gets in the bits of a register that no field of the transfer names.
#[derive(Clone, Copy, Debug, Deserialize, PartialEq, Eq)]
#[serde(rename_all = "kebab-case")]
pub(super) enum Reserved {
    /// Zeros.
    Zero,
    /// What the guest wrote.
    Pass,
}

/// What a store does that is narrower than its register.
#[derive(Clone, Copy, Debug, Default, Deserialize, PartialEq, Eq)]
#[serde(rename_all = "kebab-case")]
pub(in super::super) enum Partial {
    /// Replaces the bytes it covers.
    #[default]
    Merge,
    /// At the register's offset it replaces the whole register, upper bytes 0; elsewhere inside
    /// it does nothing.
    Replace,
}

#[derive(Debug, Deserialize)]
#[serde(deny_unknown_fields)]
pub(super) struct Alias {
    pub bar: u8,
    pub offset: u64,
    pub length: u64,
    pub to_bar: u8,
    pub to_offset: u64,
}

#[derive(Debug, Deserialize)]
#[serde(deny_unknown_fields)]
pub(super) struct Port {
    pub index: Place,
    pub data: Place,
    pub to_bar: u8,
    #[serde(default)]
    pub to_offset: u64,
    #[serde(default = "one")]
    pub stride: u64,
}

#[derive(Debug, Deserialize)]
#[serde(deny_unknown_fields)]
pub(super) struct Place {
    pub bar: u8,
    pub offset: u64,
    pub width: u8,
}

#[derive(Debug, Deserialize)]
#[serde(deny_unknown_fields)]
pub(super) struct Transfer {
    pub name: String,
    pub source: Option<String>,
    pub destination: Option<String>,
    pub memory: Option<String>,
    pub device: Option<String>,
    pub length: Length,
    pub direction: Direction,
    pub start: Start,
    pub busy: Option<Bits>,
    #[serde(default)]
    pub latched_at_start: bool,
    pub status: Option<String>,
    pub max_length: u64,
    pub address_bits: u8,
    #[serde(default = "one")]
    pub alignment: u64,
    pub boundary: Option<u64>,
    pub window: Option<Window>,
}

#[derive(Debug, Deserialize)]
#[serde(deny_unknown_fields)]
pub(super) struct Length {
    pub register: Option<String>,
    pub fixed: Option<u64>,
    pub mask: Option<u64>,
    #[serde(default = "one")]
    pub unit: u64,
    #[serde(default)]
    pub bias: u64,
}

#[derive(Debug, Deserialize)]
#[serde(deny_unknown_fields)]
pub(super) struct Direction {
    pub fixed: Option<direction::Direction>,
    pub register: Option<String>,
    pub mask: Option<u64>,
    pub to_memory: Option<u64>,
    pub from_memory: Option<u64>,
}

#[derive(Debug, Deserialize)]
#[serde(deny_unknown_fields)]
pub(super) struct Start {
    pub register: String,
    pub mask: u64,
    pub value: u64,
    #[serde(default)]
    pub otherwise: Otherwise,
}

/// What becomes of a store to the start register that does not start.
#[derive(Clone, Copy, Debug, Default, Deserialize, PartialEq, Eq)]
#[serde(rename_all = "kebab-case")]
pub(in super::super) enum Otherwise {
    /// It is remembered, for parts of the register that are written before the start.
    #[default]
    Drop,
    /// It goes to the device, unless a transfer is under way.
    Pass,
}

#[derive(Debug, Deserialize)]
#[serde(deny_unknown_fields)]
pub(super) struct Bits {
    pub register: String,
    pub mask: u64,
    pub value: u64,
}

#[derive(Clone, Copy, Debug, Deserialize)]
#[serde(deny_unknown_fields)]
pub(super) struct Window {
    pub start: u64,
    pub length: u64,
}

const fn one() -> u64 {
    1
}
