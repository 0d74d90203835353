// SPDX-License-Identifier: Apache-2.0 OR BSD-3-Clause

//! What depends on the CPU architecture of the host. Each architecture is a directory with the
//! items below; nothing outside of it depends on which one it is.
//!
//! | question | items |
//! |---|---|
//! | Does the CPU run guests? | [`check_virtualisation`] |
//! | What does a guest need of KVM, and which options and modules of the kernel are KVM? | [`NEEDED_OF_KVM`], [`kvm_obstacle`], [`KVM_OPTIONS`], [`KVM_MODULES`] |
//! | Which target of the kernel's makefile is the file to boot? | [`KERNEL_TARGET`] |
//! | Are the addresses of the CPU those that memory has for devices? | [`memory_encryption`], [`check_encryption`], [`Encryption`], [`EncryptionUnknown`], [`translated_bar`], [`described_bridge`] |
//! | Do devices see the CPU's caches? | [`DMA_IS_COHERENT`] |
//! | Where can config space be? | [`HAS_FIXED_CONFIG_SPACE`], [`CONFIG_WINDOW_LIMIT`] |
//!
//! Every kernel has hugepages of 2 MiB, whatever its pages ([`host_page_size`](iommufd_backend::host_page_size)).

#[cfg(target_arch = "aarch64")]
mod aarch64;
#[cfg(target_arch = "x86_64")]
mod x86_64;

#[cfg(target_arch = "aarch64")]
pub use aarch64::encryption::{Encryption, EncryptionUnknown, memory_encryption};
#[cfg(target_arch = "aarch64")]
pub(crate) use aarch64::{
    CONFIG_WINDOW_LIMIT, DMA_IS_COHERENT, HAS_FIXED_CONFIG_SPACE, KERNEL_TARGET, KVM_MODULES,
    KVM_OPTIONS, NEEDED_OF_KVM,
    checks::{check_encryption, check_virtualisation},
    described_bridge, kvm_obstacle, translated_bar,
};
#[cfg(target_arch = "x86_64")]
pub use x86_64::cpu::{Encryption, EncryptionUnknown, memory_encryption};
#[cfg(target_arch = "x86_64")]
pub(crate) use x86_64::{
    CONFIG_WINDOW_LIMIT, DMA_IS_COHERENT, HAS_FIXED_CONFIG_SPACE, KERNEL_TARGET, KVM_MODULES,
    KVM_OPTIONS, NEEDED_OF_KVM,
    checks::{check_encryption, check_virtualisation},
    described_bridge, kvm_obstacle, translated_bar,
};
