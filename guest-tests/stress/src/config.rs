// SPDX-License-Identifier: Apache-2.0 OR BSD-3-Clause

//! A machine in software, for stress runs.

/// A machine whose physical memory is synthetic and whose only device is a DMA engine in
/// software, so that it needs nothing of the host but KVM.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct SoftwareConfig {
    /// Decides where memory is.
    pub seed: u64,
    /// How the engine's DMA reaches guest memory.
    pub dma: SoftwareDma,
    /// What the engine does wrong, if anything.
    pub fault: Option<EngineFault>,
}

/// How the DMA of an engine in software reaches guest memory; each as the
/// [`DmaMode`](vmm::config::DmaMode) of its name.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub enum SoftwareDma {
    /// Guest-physical addresses are the synthetic physical ones.
    #[default]
    Identity,
    /// The guest looks physical addresses up in a table that it is shown.
    Translate,
    /// The monitor checks and translates what the guest writes to the engine's registers.
    Mediate,
}

/// What a DMA engine can be made to do wrong, to see that it is noticed.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum EngineFault {
    /// It adds a page to every bus address.
    Offset,
    /// Now and then it does not interrupt.
    Interrupt,
    /// Now and then it flips a bit.
    Bit,
}
