// SPDX-License-Identifier: Apache-2.0 OR BSD-3-Clause

//! Why a guest's bus cannot be built, or a function cannot be added.

use std::error::Error;

use address::Bdf;
use devices::mediate::{self, ProfileError};
use devices::pci::RootError;
use devices::vfio_pci;
use host::Id;
use strum::{EnumDiscriminants, EnumIter, IntoEnumIterator, IntoStaticStr};

use super::address_map::NoEcamError;
use super::slots::TooManyDevices;
use super::window::WindowError;
use crate::error::explain::{ExitCode, Explain, Limits, ProcessError, REPORT_BUG};
use crate::kvm::irq::IrqError;
use crate::kvm::vm::VmError;
use crate::passthrough::guarded::GuardError;

/// The guest's bus cannot be as it should.
#[derive(Debug, thiserror::Error, EnumDiscriminants)]
#[strum_discriminants(
    name(BusErrorKind),
    derive(EnumIter, IntoStaticStr),
    strum(serialize_all = "kebab-case"),
    doc = "The kinds of [`BusError`]; their names stay."
)]
pub enum BusError {
    /// The host's address map.
    #[error(transparent)]
    NoEcam(#[from] NoEcamError),
    /// The guest's bus.
    #[error(transparent)]
    Root(#[from] RootError),
    /// A function on the guest's bus.
    #[error(transparent)]
    Function(#[from] vfio_pci::SetupError),
    /// The device of a synthetic machine.
    #[error("{0}")]
    Engine(Box<dyn Error + Send + Sync>),
    /// The DMA window.
    #[error(transparent)]
    Window(#[from] WindowError),
    /// None of the shipped profiles is for the device.
    #[error(
        "PCI device {bdf}: dma=mediate requires a profile that describes the device's registers, \
         and Pinvisor includes none for {vendor:04x}:{device:04x}"
    )]
    NoProfile {
        /// The device.
        bdf: Bdf,
        /// Its vendor ID.
        vendor: u16,
        /// Its device ID.
        device: u16,
    },
    /// A device cannot be mediated.
    #[error(transparent)]
    Mediate(#[from] mediate::SetupError),
    /// A profile is not sound.
    #[error(transparent)]
    Profile(#[from] ProfileError),
    /// A controller is not guarded.
    #[error(transparent)]
    Guard(#[from] GuardError),
    /// No slot is left.
    #[error(transparent)]
    TooManyDevices(#[from] TooManyDevices),
    /// KVM.
    #[error(transparent)]
    Vm(#[from] VmError),
    /// KVM's interrupts.
    #[error(transparent)]
    Irq(#[from] IrqError),
    /// This process cannot do something.
    #[error(transparent)]
    Process(#[from] ProcessError),
}

impl Explain for BusError {
    fn ids() -> Vec<&'static str> {
        let own = BusErrorKind::iter().filter(|kind| {
            use BusErrorKind::{Guard, Irq, Process, TooManyDevices, Vm};
            !matches!(kind, Guard | Irq | Process | TooManyDevices | Vm)
        });
        own.map(Into::into).collect()
    }

    fn id(&self) -> &'static str {
        match self {
            Self::Guard(error) => error.id(),
            Self::TooManyDevices(error) => error.id(),
            Self::Vm(error) => error.id(),
            Self::Irq(error) => error.id(),
            Self::Process(error) => error.id(),
            _ => BusErrorKind::from(self).into(),
        }
    }

    fn exit_code(&self) -> ExitCode {
        match self {
            Self::Profile(_) => ExitCode::Usage,
            Self::NoEcam(_) | Self::Root(_) => ExitCode::Host,
            Self::Function(_) | Self::Engine(_) | Self::NoProfile { .. } | Self::Mediate(_) => {
                ExitCode::Device
            }
            Self::Window(_) => ExitCode::Memory,
            Self::Guard(error) => error.exit_code(),
            Self::TooManyDevices(error) => error.exit_code(),
            Self::Vm(error) => error.exit_code(),
            Self::Irq(error) => error.exit_code(),
            Self::Process(error) => error.exit_code(),
        }
    }

    fn hint(&self, limits: Limits) -> Option<String> {
        match self {
            Self::NoEcam(_) => Some(
                "make room below 4 GiB: enable \"Above 4G decoding\" in the host's firmware, or \
                 remove a device with large BARs from the host; cat /proc/iomem as root shows the \
                 map"
                .to_owned(),
            ),
            Self::NoProfile { bdf, .. } => Some(format!(
                "write a profile (format: docs/reference/mediate.md) and name it: --device \
                 {bdf},dma=mediate,profile=FILE"
            )),
            Self::Function(error) => other_function(error),
            Self::Window(WindowError::NoRoom { .. }) => Some(
                "use a smaller --memory: the window's table grows with it; or enable \"Above 4G \
                 decoding\" in the host's firmware"
                    .to_owned(),
            ),
            Self::Mediate(
                mediate::SetupError::OtherDevice { .. } | mediate::SetupError::Outside { .. },
            ) => Some(
                "use the profile of this device and revision: compare it with lspci -nvs BDF"
                    .to_owned(),
            ),
            Self::Profile(_) => {
                Some("correct the profile (format: docs/reference/mediate.md)".to_owned())
            }
            Self::Root(_) | Self::Window(WindowError::Setup(_)) => Some(REPORT_BUG.to_owned()),
            Self::Engine(_) | Self::Mediate(mediate::SetupError::Config { .. }) => None,
            Self::Guard(error) => error.hint(limits),
            Self::TooManyDevices(error) => error.hint(limits),
            Self::Vm(error) => error.hint(limits),
            Self::Irq(error) => error.hint(limits),
            Self::Process(error) => error.hint(limits),
        }
    }

    fn check(&self, limits: Limits) -> Option<Id> {
        match self {
            Self::NoEcam(_) => Some(Id::ConfigSpace),
            Self::NoProfile { .. } => Some(Id::DeviceDmaMode),
            Self::Root(_)
            | Self::Function(_)
            | Self::Engine(_)
            | Self::Window(_)
            | Self::Mediate(_)
            | Self::Profile(_) => None,
            Self::Guard(error) => error.check(limits),
            Self::TooManyDevices(error) => error.check(limits),
            Self::Vm(error) => error.check(limits),
            Self::Irq(error) => error.check(limits),
            Self::Process(error) => error.check(limits),
        }
    }
}

/// What to do about a device that cannot be a function of the guest's bus.
fn other_function(error: &vfio_pci::SetupError) -> Option<String> {
    let text = match error {
        vfio_pci::SetupError::Silent { device } => format!(
            "dmesg | grep {device} on the host may show why; if the device hangs, power the host \
             off and on (a reboot may not be enough)"
        ),
        vfio_pci::SetupError::NotEndpoint { .. } => {
            "pass through the devices behind the bridge: pinvisor list".to_owned()
        }
        vfio_pci::SetupError::Config { .. } | vfio_pci::SetupError::ConfigSize { .. } => {
            return None;
        }
    };
    Some(text)
}
