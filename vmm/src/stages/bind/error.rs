// SPDX-License-Identifier: Apache-2.0 OR BSD-3-Clause

//! Why a device is not bound and reset.

use std::io;

use address::Bdf;
use host::{BindError, BindErrorKind, Id};
use strum::{EnumDiscriminants, EnumIter, IntoEnumIterator, IntoStaticStr};

use crate::error::explain::{ExitCode, Explain, Limits};

/// A device cannot be bound, or not in a known state.
#[derive(Debug, thiserror::Error, EnumDiscriminants)]
#[strum_discriminants(
    name(BindStageErrorKind),
    derive(EnumIter, IntoStaticStr),
    strum(serialize_all = "kebab-case"),
    doc = "The kinds of [`BindStageError`]; their names stay."
)]
pub enum BindStageError {
    /// It was not to be bound or unbound.
    #[error(transparent)]
    Bind(#[from] BindError),
    /// It keeps what its last user left in it.
    #[error(
        "PCI device {bdf} cannot be reset, so DMA that is still running would continue under its \
         next user: it has no function-level reset, and {}",
        bus_reset(others)
    )]
    NoReset {
        /// The device.
        bdf: Bdf,
        /// Functions that a reset of its bus would hit too.
        others: Vec<Bdf>,
    },
}

/// Why a device's bus cannot be reset.
fn bus_reset(others: &[Bdf]) -> String {
    match others {
        [] => "its bus cannot be reset either, as no bridge above it can do so".to_owned(),
        _ => format!(
            "a reset of its bus would also reset {}, which this guest does not have",
            names(others, ", ")
        ),
    }
}

fn names(list: &[Bdf], between: &str) -> String {
    let names: Vec<_> = list.iter().map(Bdf::to_string).collect();
    names.join(between)
}

impl Explain for BindStageError {
    fn ids() -> Vec<&'static str> {
        let own = BindStageErrorKind::iter().filter(|kind| *kind != BindStageErrorKind::Bind);
        BindError::ids()
            .into_iter()
            .chain(own.map(Into::into))
            .collect()
    }

    fn id(&self) -> &'static str {
        match self {
            Self::Bind(error) => error.id(),
            Self::NoReset { .. } => BindStageErrorKind::from(self).into(),
        }
    }

    fn exit_code(&self) -> ExitCode {
        match self {
            Self::Bind(error) => error.exit_code(),
            Self::NoReset { .. } => ExitCode::Device,
        }
    }

    fn hint(&self, limits: Limits) -> Option<String> {
        match self {
            Self::Bind(error) => Explain::hint(error, limits),
            Self::NoReset { bdf, others } => {
                let first = match others.as_slice() {
                    [] => {
                        "move it to a slot behind a bridge, which can reset it; a device that is \
                           integrated into the board or the chipset has no slot"
                            .to_owned()
                    }
                    _ => format!(
                        "pass them all to this guest: --device {bdf} --device {}",
                        names(others, " --device ")
                    ),
                };
                Some(format!(
                    "{first}; or accept that its DMA may continue: --device {bdf},reset=none"
                ))
            }
        }
    }

    fn check(&self, limits: Limits) -> Option<Id> {
        match self {
            Self::Bind(error) => error.check(limits),
            Self::NoReset { .. } => Some(Id::DeviceReset),
        }
    }
}

impl Explain for BindError {
    fn ids() -> Vec<&'static str> {
        // Errors of sysfs have their own names.
        let own = BindErrorKind::iter().filter(|kind| *kind != BindErrorKind::BindFacts);
        own.map(Into::into).collect()
    }

    fn id(&self) -> &'static str {
        match self {
            Self::BindFacts(error) => error.id(),
            _ => BindErrorKind::from(self).into(),
        }
    }

    fn exit_code(&self) -> ExitCode {
        match self {
            Self::BindFacts(error) => error.exit_code(),
            Self::BindUnsafeModeOff { .. }
            | Self::BindNoNoiommu { .. }
            | Self::BindNoVfioPci { .. }
            | Self::BindNoCdev { .. } => ExitCode::Host,
            Self::BindWrite { source, .. }
                if source.kind() == io::ErrorKind::ReadOnlyFilesystem =>
            {
                ExitCode::Host
            }
            Self::BindBridge { .. }
            | Self::BindSilent { .. }
            | Self::BindInUse { .. }
            | Self::UnbindOpen { .. }
            | Self::BindNotTaken { .. }
            | Self::BindWrite { .. } => ExitCode::Device,
        }
    }

    fn hint(&self, limits: Limits) -> Option<String> {
        match self {
            Self::BindFacts(error) => Explain::hint(error, limits),
            _ => self.hint(),
        }
    }

    fn check(&self, limits: Limits) -> Option<Id> {
        Some(match self {
            Self::BindFacts(error) => return error.check(limits),
            Self::BindInUse { .. } | Self::UnbindOpen { .. } => Id::DeviceInUse,
            Self::BindUnsafeModeOff { .. } | Self::BindNoNoiommu { .. } => Id::UnsafeMode,
            Self::BindNoVfioPci { .. } => Id::KernelConfig,
            Self::BindNoCdev { .. } => Id::DeviceCdev,
            Self::BindWrite { source, .. } => match source.kind() {
                io::ErrorKind::ReadOnlyFilesystem => Id::Sysfs,
                _ => return None,
            },
            Self::BindBridge { .. } | Self::BindSilent { .. } => Id::DeviceType,
            Self::BindNotTaken { .. } => return None,
        })
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_shared_bus_is_reset_if_the_guest_has_all_of_its_functions() {
        let bdf = |name: &str| name.parse::<Bdf>().unwrap();
        let error = BindStageError::NoReset {
            bdf: bdf("02:00.0"),
            others: vec![bdf("02:00.1"), bdf("02:00.2")],
        };
        let hint = error.hint(Limits::NONE).unwrap();
        let together = "--device 0000:02:00.0 --device 0000:02:00.1 --device 0000:02:00.2;";
        assert!(hint.contains(together), "{hint}");
        assert!(hint.ends_with("--device 0000:02:00.0,reset=none"), "{hint}");
    }

    /// As network interfaces of current Intel chipsets.
    #[test]
    fn an_integrated_device_has_no_slot_to_move_it_from() {
        let error = BindStageError::NoReset {
            bdf: "00:1f.6".parse().unwrap(),
            others: Vec::new(),
        };
        assert!(error.to_string().contains("no bridge above it"), "{error}");
        let hint = error.hint(Limits::NONE).unwrap();
        for words in ["integrated", "--device 0000:00:1f.6,reset=none"] {
            assert!(hint.contains(words), "{hint}");
        }
    }
}
