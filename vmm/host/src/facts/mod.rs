//! What is found on a host, without any judgement.

pub(crate) mod available_memory;
pub(crate) mod config_space;
pub(crate) mod config_window;
pub(crate) mod cpu;
pub(crate) mod in_use;
pub(crate) mod kvm;
pub(crate) mod names;
pub(crate) mod network;
pub(crate) mod sleep;
pub(crate) mod storage;
