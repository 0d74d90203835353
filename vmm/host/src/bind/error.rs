// SPDX-License-Identifier: Apache-2.0 OR BSD-3-Clause

//! Why a device could not be bound or unbound, and hints.

use std::io;
use std::path::PathBuf;

use address::Bdf;
use rustix::io::Errno;
use strum::{EnumDiscriminants, EnumIter, IntoStaticStr};

use crate::checks::device::silent_hint;
use crate::facts::uses::Use;

/// A device could not be given to vfio-pci, or back. The device is as it was before.
#[derive(Debug, thiserror::Error, EnumDiscriminants)]
#[strum_discriminants(
    name(BindErrorKind),
    derive(EnumIter, IntoStaticStr, PartialOrd, Ord),
    strum(serialize_all = "kebab-case"),
    doc = "The kinds of [`BindError`]; their names stay."
)]
pub enum BindError {
    /// The state of the device in sysfs.
    #[error(transparent)]
    BindFacts(#[from] iommufd_backend::Error),
    /// A bridge: it cannot be passed through without the devices behind it.
    #[error("PCI device {bdf} is a bridge (class {class:06x}), which cannot be passed through")]
    BindBridge {
        /// The function.
        bdf: Bdf,
        /// Its class code.
        class: u32,
    },
    /// Nothing answers.
    #[error("PCI device {bdf} does not respond: its config space reads as all ones")]
    BindSilent {
        /// The function.
        bdf: Bdf,
    },
    /// The host uses the device.
    #[error("PCI device {bdf} is in use: {}", list(uses))]
    BindInUse {
        /// The device.
        bdf: Bdf,
        /// What for.
        uses: Vec<Use>,
    },
    /// A process has the device open, and taking it away would wait for that to end; or virtual
    /// functions of it are on, which a run would reset.
    #[error("PCI device {bdf} is in use: {by}")]
    UnbindOpen {
        /// The device.
        bdf: Bdf,
        /// By whom.
        by: Use,
    },
    /// The kernel does not allow binding devices that no IOMMU isolates.
    #[error(
        "No IOMMU isolates PCI device {bdf}, and the host kernel's unsafe noiommu mode, which \
         binding it requires, is off"
    )]
    BindUnsafeModeOff {
        /// The device.
        bdf: Bdf,
    },
    /// The kernel has no support for devices that no IOMMU isolates.
    #[error(
        "No IOMMU isolates PCI device {bdf}, and the host kernel was built without \
         CONFIG_VFIO_NOIOMMU, which binding it requires"
    )]
    BindNoNoiommu {
        /// The device.
        bdf: Bdf,
    },
    /// No driver to bind to.
    #[error("The host has no driver vfio-pci, and loading it failed: {reason}")]
    BindNoVfioPci {
        /// The output.
        reason: String,
    },
    /// The driver did not take the device.
    #[error(
        "vfio-pci did not bind PCI device {bdf}, which {}",
        holder(restored.as_deref())
    )]
    BindNotTaken {
        /// The device.
        bdf: Bdf,
        /// The driver that has it again.
        restored: Option<String>,
    },
    /// The driver took the device, but no character device came.
    #[error(
        "vfio-pci bound PCI device {bdf} but created no character device or group for it, so it {}",
        holder(restored.as_deref())
    )]
    BindNoCdev {
        /// The device.
        bdf: Bdf,
        /// The driver that has it again.
        restored: Option<String>,
    },
    /// A file of sysfs was not to be written.
    #[error("Cannot write {what:?} to {}", path.display())]
    BindWrite {
        /// What was to be written.
        what: String,
        /// The file.
        path: PathBuf,
        /// Why not.
        source: io::Error,
    },
}

impl BindError {
    /// What the user can do about it.
    #[must_use]
    pub fn hint(&self) -> Option<String> {
        match self {
            Self::BindFacts(error) => error.hint(),
            Self::BindBridge { .. } => Some(
                "pass through the devices behind it: pinvisor list shows which can be bound"
                    .to_owned(),
            ),
            Self::BindSilent { bdf } => Some(silent_hint(*bdf)),
            Self::BindInUse { bdf, uses } => {
                let hints: Vec<_> = uses.iter().map(Use::hint).collect();
                Some(format!(
                    "{}; or bind it anyway: pinvisor bind --force {bdf}",
                    hints.join("; ")
                ))
            }
            Self::UnbindOpen { by, .. } => Some(by.hint()),
            Self::BindUnsafeModeOff { bdf } => Some(format!(
                "if you accept that its user can read and write all memory of the host: echo 1 > /sys/module/vfio/parameters/enable_unsafe_noiommu_mode && \
                 pinvisor bind {bdf}"
            )),
            Self::BindNoNoiommu { .. } => Some(
                "boot a host kernel with CONFIG_VFIO_NOIOMMU; pinvisor check \
                     lists all options that are missing"
                    .to_owned(),
            ),
            Self::BindNoVfioPci { .. } => Some(
                "modprobe vfio-pci; if the module does not exist, boot a host kernel with \
                 CONFIG_VFIO_PCI"
                    .to_owned(),
            ),
            Self::BindNotTaken { bdf, .. } => Some(format!(
                "the host's log has the reason: dmesg | grep -e {bdf} -e vfio"
            )),
            Self::BindNoCdev { .. } => Some(
                "boot a host kernel with CONFIG_VFIO_DEVICE_CDEV (Linux 7.3 or later without an IOMMU) or, \
                 without an IOMMU, CONFIG_VFIO_GROUP; pinvisor check names what is missing"
                    .to_owned(),
            ),
            Self::BindWrite { source, .. } => match source.kind() {
                io::ErrorKind::PermissionDenied => Some("run as root".to_owned()),
                io::ErrorKind::ReadOnlyFilesystem => Some(
                    "mount -o remount,bind,rw /sys; or, if this is a container, bind the \
                         device on the host"
                        .to_owned(),
                ),
                _ if source.raw_os_error() == Some(Errno::NODEV.raw_os_error()) => Some(
                    "the device may have changed its driver or disappeared at that moment: \
                     pinvisor list, then try again"
                        .to_owned(),
                ),
                _ => None,
            },
        }
    }
}

fn list(uses: &[Use]) -> String {
    let uses: Vec<_> = uses.iter().map(Use::to_string).collect();
    uses.join("; ")
}

fn holder(driver: Option<&str>) -> String {
    match driver {
        Some(driver) => format!("is bound to {driver} again"),
        None => "has no driver again".to_owned(),
    }
}
