//! What must hold on a host before a PCI device can be passed through, and the steps that make a
//! device ready.
//!
//! [`check`] looks at everything in order and judges it line by line ([`Line`]); each line has an
//! [`Id`] that stays, a verdict, and the next command to type unless all is well. [`list`] tells
//! what there is; [`bind`] gives a device to vfio-pci and [`unbind`] back to its own driver.
//!
//! Everything is read below one [`Host`] root, so that a tree of files can stand for a machine.
//! What the kernel's files say is taken with care: a text that makes no sense is as good as none.

mod binding;
mod check;
mod config_space;
mod config_window;
mod cpu;
mod device;
mod dma;
mod error;
mod host;
mod id;
mod in_use;
mod interrupts;
mod kept;
mod kernel;
mod kvm;
mod line;
mod list;
mod memory;
mod names;
mod network;
mod nodes;
mod open_files;
mod ordinary;
mod privilege;
mod reset;
mod sleep;
mod storage;
mod sysfs;
mod wanted;

pub use binding::{
    Bound, Unbound, bind, ensure_closed, ensure_no_virtual_functions, prepare, unbind,
};
pub use check::check;
pub use config_window::{CONFIG_WINDOW_LIMIT, CONFIG_WINDOW_SIZE, ConfigWindow};
pub use cpu::{Encryption, EncryptionUnknown, memory_encryption};
pub use error::{BindError, BindErrorKind};
pub use host::Host;
pub use id::Id;
pub use in_use::Use;
pub use kept::of_device as keepers_of;
pub use kvm::{KvmObstacle, kvm_suffices};
pub use line::{Line, Report, Verdict};
pub use list::{Device, Devices, Keeper, Mode, list};
pub use open_files::{more_open_files, open_files_needed};
pub use ordinary::{AvailableMemory, MemoryLimit, available_memory};
pub use privilege::{has_seccomp_filter, locked_memory_limit};
pub use sleep::sleep_states;
pub use wanted::{DmaMode, Wanted, WantedDevice, WantedMemory};
