//! Policy and KVM.
