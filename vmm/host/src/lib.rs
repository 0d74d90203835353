// SPDX-License-Identifier: Apache-2.0 OR BSD-3-Clause

//! Facts about a host and its PCI devices, checks on them, and the steps that bind a device.
//!
//! - `facts` reads the host's state, one function for each fact, shared by `run`, `plan`, `check`,
//!   `list` and `bind`: it judges nothing and has no text for users.
//! - `checks` judges the facts: [`check`] runs all checks in order and returns a [`Line`] for each,
//!   with a stable [`Id`], a verdict, a text and, unless it is OK, a hint. It also has the texts of
//!   facts.
//! - `bind` binds a device to vfio-pci ([`bind`](bind())), and [`unbind`] returns it to its own
//!   driver.
//! - `arch` has the facts and checks that depend on the CPU architecture.
//! - [`list`](list()) names the devices with their facts.
//!
//! Everything is read below one [`SysRoot`], so that a tree of files can be a machine in tests. The
//! kernel's files are outside input: text that cannot be parsed counts as missing.

mod arch;
mod bind;
mod checks;
mod facts;
mod list;
mod sys_root;
mod wanted;

pub use arch::{Encryption, EncryptionUnknown, memory_encryption};
pub use bind::error::{BindError, BindErrorKind};
pub use bind::{Bound, Unbound, bind, ensure_closed, ensure_no_virtual_functions, prepare, unbind};
pub use checks::backend::sentence as backend_text;
pub use checks::check;
pub use checks::id::Id;
pub use checks::kept::sentence as keeper_text;
pub use checks::line::{Line, Report, Verdict};
pub use checks::open_files::open_files_hint;
pub use facts::auto_dma::{AutoDma, TooFewHugepages};
pub use facts::available_memory::{
    AvailableMemory, MemoryLimit, available_memory, refuses_overcommit,
};
pub use facts::backend::{Backend, BackendChoice, BackendDecision, BackendReason};
pub use facts::bus_range::{BusRange, DmaMap};
pub use facts::config_window::{CONFIG_WINDOW_LIMIT, CONFIG_WINDOW_SIZE, ConfigWindow};
pub use facts::device::{cdev_kind, translated_bar};
pub use facts::dma_mode::{DmaConflict, DmaMode, ResolvedDma, conflicting, needs_hugepages};
pub use facts::guarded::{GuardObstacle, NVME_CLASS, guard_obstacle, is_nvme};
pub use facts::host_bridge::{HostBridge, HostBridgeError, host_bridge};
pub use facts::kept::of_device as keepers_of;
pub use facts::kvm::{KvmObstacle, kvm_suffices};
pub use facts::memory::movable_memory;
pub use facts::open_files::OpenFiles;
pub use facts::privilege::Privilege;
pub use facts::sleep::{Sleep, sleep};
pub use facts::uses::{Holder, Use};
pub use list::{Device, Devices, Keeper, Mode, list};
pub use sys_root::SysRoot;
pub use wanted::{Mediation, Wanted, WantedDevice, WantedMemory};
