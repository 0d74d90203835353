//! The second stage: KVM, before any device is bound.

use std::sync::Arc;

use super::inspect::{Guest, Source};
use crate::kvm::vm::Vm;

/// A guest with a VM, which has neither memory nor CPUs.
#[derive(Debug)]
pub(crate) struct Opened<'a> {
    pub(super) guest: Guest<'a>,
    pub(super) source: Source,
    pub(super) vm: Arc<Vm>,
}
