//! What must hold on a host before a PCI device can be passed through, and the steps that make a
//! device ready.
//!
//! [`check`] looks at everything in order and judges it line by line ([`Line`]); each line has an
//! [`Id`] that stays, a verdict, and the next command to type unless all is well. [`list`] tells
//! what there is; [`bind`] gives a device to vfio-pci and [`unbind`] back to its own driver.
//!
//! Everything is read below one [`SysRoot`], so that a tree of files can stand for a machine.
//! What the kernel's files say is taken with care: a text that makes no sense is as good as none.

mod bind;
mod checks;
mod facts;
mod list;
mod sys_root;
mod wanted;

pub use bind::error::{BindError, BindErrorKind};
pub use bind::{Bound, Unbound, bind, ensure_closed, ensure_no_virtual_functions, prepare, unbind};
pub use checks::check;
pub use checks::id::Id;
pub use checks::kept::sentence as keeper_text;
pub use checks::line::{Line, Report, Verdict};
pub use checks::open_files::open_files_hint;
pub use facts::available_memory::{
    AvailableMemory, MemoryLimit, available_memory, refuses_overcommit,
};
pub use facts::config_window::{CONFIG_WINDOW_LIMIT, CONFIG_WINDOW_SIZE, ConfigWindow};
pub use facts::cpu::{Encryption, EncryptionUnknown, memory_encryption};
pub use facts::device::{cdev_kind, translated_bar};
pub use facts::dma_mode::{DmaConflict, DmaMode, ResolvedDma, conflicting, needs_hugepages};
pub use facts::in_use::Use;
pub use facts::kept::of_device as keepers_of;
pub use facts::kvm::{KvmObstacle, kvm_suffices};
pub use facts::open_files::open_files_needed;
pub use facts::privilege::{has_seccomp_filter, locked_memory_limit};
pub use facts::sleep::sleep_states;
pub use list::{Device, Devices, Keeper, Mode, list};
pub use sys_root::SysRoot;
pub use wanted::{Wanted, WantedDevice, WantedMemory};
