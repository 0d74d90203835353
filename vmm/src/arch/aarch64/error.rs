// SPDX-License-Identifier: Apache-2.0 OR BSD-3-Clause

//! Why a guest cannot be described to its kernel, or its CPUs not be set up.

use host::{HostBridgeError, Id};
use strum::{EnumDiscriminants, EnumIter, IntoEnumIterator, IntoStaticStr};
use vm_memory::GuestMemoryError;

use super::bridges::BridgesError;
use super::host_pages::HostPagesError;
use crate::arch::params::ParamsError;
use crate::boot::LoadError;
use crate::error::explain::{ExitCode, Explain, Limits};
use crate::memory::LayoutError;

/// Why a CPU cannot be set up.
#[derive(Debug, thiserror::Error)]
pub enum EntryError {
    /// KVM refused.
    #[error("KVM: cannot set {what}")]
    Kvm {
        /// What was to be set.
        what: &'static str,
        /// Why not.
        source: kvm_ioctls::Error,
    },
}

/// Why the guest cannot have its device tree.
#[derive(Debug, thiserror::Error)]
pub enum DeviceTreeError {
    /// The tree cannot be made.
    #[error("Cannot make the device tree")]
    Make(#[from] vm_fdt::Error),
    /// It is too long for its place.
    #[error("The device tree needs {need} bytes, there are {room}")]
    TooLong {
        /// Bytes needed.
        need: u64,
        /// Bytes there.
        room: u64,
    },
    /// Memory did not take it.
    #[error("Cannot write the device tree")]
    Write(#[from] GuestMemoryError),
    /// There are no random bytes to give.
    #[error("Cannot read /dev/urandom")]
    Random(#[source] std::io::Error),
}

/// What a kernel begins with cannot be made.
#[derive(Debug, thiserror::Error, EnumDiscriminants)]
#[strum_discriminants(
    name(ArchErrorKind),
    derive(EnumIter, IntoStaticStr),
    strum(serialize_all = "kebab-case"),
    doc = "The kinds of [`ArchError`]; their names stay."
)]
pub enum ArchError {
    /// The command line for the kernel.
    #[error(transparent)]
    Params(#[from] ParamsError),
    /// vCPU state.
    #[error(transparent)]
    Entry(#[from] EntryError),
    /// The device tree.
    #[error(transparent)]
    DeviceTree(#[from] DeviceTreeError),
    /// The host bridge of a device.
    #[error(transparent)]
    HostBridge(#[from] HostBridgeError),
    /// The host bridges of all devices together, or of one in its mode.
    #[error(transparent)]
    Bridges(#[from] BridgesError),
    /// The host's pages, in which a device's mode does not work.
    #[error(transparent)]
    HostPages(#[from] HostPagesError),
    /// Memory does not take it.
    #[error(transparent)]
    Load(#[from] LoadError),
    /// Memory has no layout that can be described.
    #[error(transparent)]
    Layout(#[from] LayoutError),
}

impl Explain for ArchError {
    fn ids() -> Vec<&'static str> {
        let own = ArchErrorKind::iter()
            .filter(|kind| !matches!(kind, ArchErrorKind::Load | ArchErrorKind::Layout));
        own.map(Into::into).collect()
    }

    fn id(&self) -> &'static str {
        match self {
            Self::Load(error) => error.id(),
            Self::Layout(error) => error.id(),
            _ => ArchErrorKind::from(self).into(),
        }
    }

    fn exit_code(&self) -> ExitCode {
        match self {
            Self::Params(_) => ExitCode::Usage,
            Self::Entry(_) | Self::DeviceTree(_) | Self::HostBridge(_) => ExitCode::Host,
            Self::Bridges(_) | Self::HostPages(_) => ExitCode::Device,
            Self::Load(error) => error.exit_code(),
            Self::Layout(error) => error.exit_code(),
        }
    }

    fn hint(&self, limits: Limits) -> Option<String> {
        match self {
            Self::Params(_) | Self::Entry(_) | Self::DeviceTree(_) => None,
            Self::HostBridge(error) => Some(error.hint()),
            Self::Bridges(error) => Some(error.hint()),
            Self::HostPages(error) => Some(error.hint()),
            Self::Load(error) => error.hint(limits),
            Self::Layout(error) => error.hint(limits),
        }
    }

    fn check(&self, limits: Limits) -> Option<Id> {
        match self {
            Self::Params(_) | Self::Entry(_) | Self::DeviceTree(_) => None,
            Self::HostBridge(_) | Self::Bridges(_) => Some(Id::DeviceBars),
            Self::HostPages(_) => Some(Id::Kvm),
            Self::Load(error) => error.check(limits),
            Self::Layout(error) => error.check(limits),
        }
    }
}

#[cfg(test)]
mod tests {
    use address::Bdf;
    use host::HostBridgeError;

    use super::*;

    /// What only this architecture's monitor reports is documented on all of them.
    #[test]
    fn the_troubleshooting_page_has_every_name() {
        let path = concat!(
            env!("CARGO_MANIFEST_DIR"),
            "/../docs/guide/troubleshooting.md"
        );
        let page = std::fs::read_to_string(path).unwrap();
        for id in ArchError::ids() {
            assert!(page.contains(&format!("`error[{id}]`")), "{id}");
        }
    }

    #[test]
    fn a_bridge_is_explained_by_the_check_that_looks_at_it() {
        let bdf: Bdf = "0000:01:00.0".parse().unwrap();
        let error = ArchError::from(HostBridgeError::Acpi { bdf });
        assert_eq!(error.id(), "host-bridge");
        assert_eq!(error.exit_code(), ExitCode::Host);
        assert_eq!(error.check(Limits::NONE), Some(Id::DeviceBars));
        assert!(error.hint(Limits::NONE).is_some());
        let error = ArchError::from(DeviceTreeError::TooLong { need: 2, room: 1 });
        assert_eq!(error.id(), "device-tree");
        assert_eq!(error.check(Limits::NONE), None);
    }
}
