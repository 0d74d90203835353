// SPDX-License-Identifier: Apache-2.0 OR BSD-3-Clause

//! How a PCI function is reset: the choice of a method, and what it does.
//!
//! The choice has one owner, [`ResetMethod`]. A run makes it with what VFIO reports for bound
//! devices ([`VfioDevice::reset_method`]), `check` and `list` with what sysfs shows before
//! ([`PciSysfs::expected_reset`]), and [`settle()`](crate::settle()) for a device that is closed.

use std::fmt;
use std::io;
use std::thread;
use std::time::{Duration, Instant};

use address::Bdf;
use pci_config::regs::{CLASS, REVISION};

use crate::config_space::ConfigSpace;
use crate::device::VfioDevice;
use crate::error::Error;
use crate::group::GroupNode;
use crate::operation::Operation;
use crate::parallel::in_parallel;
use crate::pci_sysfs::PciSysfs;
use crate::retry::retried;
use crate::sys::{self, Hit};

/// The kernel's word for a reset by D3hot and back (drivers/pci/pci.c pci_reset_fn_methods).
pub(crate) const PM: &str = "pm";

/// How long a function may take to answer after a reset (PCI Express Base Specification, section 2.3.1: 1 s).
const ANSWER_LIMIT: Duration = Duration::from_secs(1);
const ANSWER_POLL: Duration = Duration::from_millis(10);

/// The kernel's word for a reset of the bus of a function that is alone on it.
pub const BUS_RESET: &str = "bus";

/// How a function is reset, and why in this way.
#[derive(Clone, Debug, PartialEq, Eq)]
pub enum ResetMethod {
    /// By itself, in the kernel's word for how: `flr`, `bus` if it is alone on it, ...
    Function(String),
    /// Together with all on its bus, which may be itself alone.
    Bus {
        /// All functions on its bus, which have the same user.
        functions: Vec<Bdf>,
        /// Its own reset, which is not trusted; `None` if it has none.
        instead_of: Option<String>,
    },
    /// None. A reset of its bus would also reset `others`, which have another user; without any,
    /// its bus has no reset either.
    None {
        /// Functions that prevent it.
        others: Vec<Bdf>,
    },
}

impl fmt::Display for ResetMethod {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        match self {
            Self::Function(method) => f.write_str(method),
            Self::Bus { .. } => f.write_str(BUS_RESET),
            Self::None { .. } => f.write_str("none"),
        }
    }
}

/// A function that a reset of a device's bus would reset.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(crate) struct Affected {
    /// The function.
    pub(crate) bdf: Bdf,
    /// Whether it has the same user as the device.
    pub(crate) owned: bool,
}

/// A PM reset is used only if there is no other. A function that goes to D3hot and back need not
/// stop anything (PCI Express Base Specification, section 5.3.1.4: its state after that is
/// undefined), and some, as QEMU's e1000e, keep their rings.
fn is_trusted(method: &str) -> bool {
    method != PM
}

/// The best of the kernel's `methods`, for callers that can select any of them: the first that is
/// trusted.
pub(crate) fn strongest(methods: &[String]) -> Option<&str> {
    let found = methods.iter().find(|method| is_trusted(method));
    found.or(methods.first()).map(String::as_str)
}

impl ResetMethod {
    /// The reset of a function whose `own` is this one, and whose bus is shared with no functions but those
    /// that `affected` finds, itself among them; none of them where the bus has no reset. They are looked for
    /// only where it matters.
    pub(crate) fn choose<E>(
        own: Option<&str>,
        affected: impl FnOnce() -> Result<Vec<Affected>, E>,
    ) -> Result<Self, E> {
        let own = own.map(str::to_owned);
        if let Some(own) = own.clone().filter(|own| is_trusted(own)) {
            return Ok(Self::Function(own));
        }
        let (owned, others): (Vec<_>, Vec<_>) =
            affected()?.into_iter().partition(|function| function.owned);
        let names = |list: Vec<Affected>| list.iter().map(|function| function.bdf).collect();
        Ok(match own {
            instead_of if others.is_empty() && !owned.is_empty() => Self::Bus {
                functions: names(owned),
                instead_of,
            },
            Some(own) => Self::Function(own),
            None => Self::None {
                others: names(others),
            },
        })
    }

    /// Whether it hits the function alone and resets it as the function-level reset does that a user may expect.
    /// A guest may ask for such a reset at any time.
    #[must_use]
    pub fn is_function_reset(&self) -> bool {
        matches!(self, Self::Function(method) if is_trusted(method))
    }

    /// The function's own reset, whether it is trusted or not.
    #[must_use]
    pub fn own(&self) -> Option<&str> {
        match self {
            Self::Function(own) => Some(own),
            Self::Bus { instead_of, .. } => instead_of.as_deref(),
            Self::None { .. } => None,
        }
    }

    /// Whether binding has done it: the kernel resets a function then as `VFIO_DEVICE_RESET` does, and offers that
    /// only if it succeeded (drivers/vfio/pci/vfio_pci_core.c vfio_pci_core_enable, `reset_works`).
    #[must_use]
    pub fn is_done_by_binding(&self) -> bool {
        matches!(self, Self::Function(_) | Self::None { .. })
    }

    /// What is left where this reset was refused: the function's own, which is not trusted.
    #[must_use]
    pub fn fallback(&self) -> Option<Self> {
        match self {
            Self::Bus { instead_of, .. } => instead_of.clone().map(Self::Function),
            Self::Function(_) | Self::None { .. } => None,
        }
    }

    /// Resets `function` for its guest, which asked for a function-level reset.
    ///
    /// # Errors
    /// [`Error::Device`]; [`Error::DeviceUnusable`] unless it [`is_function_reset`](Self::is_function_reset).
    pub fn reset_for_guest<F: Resettable>(&self, function: &F) -> Result<(), Error> {
        if self.is_function_reset() {
            return function.reset();
        }
        Err(Error::DeviceUnusable {
            bdf: function.bdf(),
            reason: format!("it has no function-level reset for its guest (reset: {self})"),
        })
    }
}

/// A function that can be reset.
pub trait Resettable: ConfigSpace {
    /// Resets the function alone.
    ///
    /// # Errors
    /// [`Error::Device`]
    fn reset(&self) -> Result<(), Error>;

    /// Resets all functions on its bus.
    ///
    /// # Errors
    /// [`Error::Device`]
    fn reset_bus(&self) -> Result<(), Error>;
}

impl Resettable for VfioDevice {
    fn reset(&self) -> Result<(), Error> {
        self.reset()
    }

    fn reset_bus(&self) -> Result<(), Error> {
        self.reset_bus()
    }
}

/// Resets `functions` by their methods, each bus once: first all buses at once, then at once the functions that are
/// reset by themselves, which may be on one of these buses. One result for each function, in order.
pub fn reset_each<F: Resettable + Sync>(
    functions: &[(&F, &ResetMethod)],
) -> Vec<Result<(), Error>> {
    let mut buses: Vec<(&F, &[Bdf])> = Vec::new();
    for (function, method) in functions {
        if let ResetMethod::Bus { functions: all, .. } = method
            && bus_of(&buses, function.bdf()).is_none()
        {
            buses.push((function, all));
        }
    }
    let mut buses_reset = in_parallel(&buses, |(function, _)| Some(function.reset_bus()));
    let results = in_parallel(functions, |(function, method)| match method {
        ResetMethod::Function(_) => function.reset(),
        ResetMethod::Bus { .. } | ResetMethod::None { .. } => Ok(()),
    });
    let shared_failure = |bdf| Error::DeviceUnusable {
        bdf,
        reason: "its bus, which it shares, was not reset".into(),
    };
    let refused: Vec<bool> = buses_reset
        .iter()
        .map(|result| matches!(result, Some(Err(_))))
        .collect();
    let with_bus = functions.iter().zip(results);
    with_bus
        .map(|((function, method), result)| {
            let bdf = function.bdf();
            match (method, bus_of(&buses, bdf)) {
                // The function through which the bus was reset reports the cause, the others that it failed.
                (ResetMethod::Bus { .. }, Some(nth)) if buses[nth].0.bdf() == bdf => {
                    buses_reset[nth].take().unwrap_or(result)
                }
                (ResetMethod::Bus { .. }, Some(nth)) if refused[nth] => Err(shared_failure(bdf)),
                _ => result,
            }
        })
        .collect()
}

/// Which of `buses` has the function `bdf`.
fn bus_of<F: Resettable>(buses: &[(&F, &[Bdf])], bdf: Bdf) -> Option<usize> {
    buses.iter().position(|(_, all)| all.contains(&bdf))
}

impl VfioDevice {
    /// The strongest way to reset the device. All devices that share its bus must be bound by now.
    ///
    /// # Errors
    /// [`Error::Device`], [`Error::Read`]
    pub fn reset_method(&self, sysfs: &PciSysfs) -> Result<ResetMethod, Error> {
        let own = self.own_reset(sysfs)?;
        ResetMethod::choose(own.as_deref(), || self.affected(sysfs))
    }

    /// How `VFIO_DEVICE_RESET` resets the function, in the kernel's own word; `None` if it cannot.
    fn own_reset(&self, sysfs: &PciSysfs) -> Result<Option<String>, Error> {
        let first = sysfs.reset_methods(self.bdf())?.into_iter().next();
        let own = self.is_resettable();
        Ok(own.then(|| first.unwrap_or_else(|| "function".to_owned())))
    }

    /// What a reset of the device's bus would reset; nothing if that has no reset.
    fn affected(&self, sysfs: &PciSysfs) -> Result<Vec<Affected>, Error> {
        let hits = match sys::hot_reset_info(self.fd()) {
            Ok(hits) => hits,
            // Its bus has no reset: it is a root bus.
            Err(error) if error.raw_os_error() == Some(libc::ENODEV) => return Ok(Vec::new()),
            // A function there has no group, as without a driver of VFIO's (drivers/vfio/pci/vfio_pci_core.c
            // vfio_pci_fill_devs).
            Err(error) if error.raw_os_error() == Some(libc::EPERM) && self.groups().is_some() => {
                return self.affected_by_sysfs(sysfs);
            }
            Err(source) => return Err(self.failed(Operation::DescribeBusReset, source)),
        };
        let affected = hits.into_iter().map(|Hit { bdf, id }| Affected {
            bdf,
            owned: match self.groups() {
                // 0 would be ours through a group, which devices in noiommu mode do not share.
                None => id != sys::NOT_OWNED,
                Some(groups) => groups.has(GroupNode::new(id)),
            },
        });
        Ok(affected.collect())
    }

    /// The same, where VFIO does not tell because of a function that has another user.
    fn affected_by_sysfs(&self, sysfs: &PciSysfs) -> Result<Vec<Affected>, Error> {
        let all = sysfs.on_bus(self.bdf()).into_iter().map(|bdf| {
            let group = GroupNode::of(sysfs, bdf)?;
            let owned = |group| self.groups().is_some_and(|groups| groups.has(group));
            Ok(Affected {
                bdf,
                owned: group.is_some_and(owned),
            })
        });
        all.collect()
    }

    /// Resets the function (`VFIO_DEVICE_RESET`), by the first of the kernel's methods. Config
    /// space comes back as it was, bus mastering included.
    ///
    /// # Errors
    /// [`Error::Device`], with `EINVAL` if the function has no reset.
    pub fn reset(&self) -> Result<(), Error> {
        retried(|| sys::reset(self.fd()))
            .map(drop)
            .map_err(|source| self.failed(Operation::Reset, source))
    }

    /// Resets all functions on the device's bus (`VFIO_DEVICE_PCI_HOT_RESET`). Their config space
    /// comes back as it was, bus mastering included. Where the kernel did not wait until they
    /// answer (ENOTTY of drivers/pci/pci.c pci_bridge_wait_for_secondary_bus: the link's state
    /// cannot be read), waits until this one does. BARs that the kernel restored too early then
    /// come back with the next write of COMMAND (drivers/vfio/pci/vfio_pci_config.c
    /// vfio_need_bar_restore).
    ///
    /// # Errors
    /// [`Error::Device`], with `EINVAL` unless [`reset_method`](Self::reset_method) returns
    /// [`ResetMethod::Bus`].
    pub fn reset_bus(&self) -> Result<(), Error> {
        let result = self.hot_reset();
        let begin = Instant::now();
        match result {
            Err(error) if error.raw_os_error() == Some(libc::ENOTTY) => {
                while self.is_silent()? {
                    if begin.elapsed() >= ANSWER_LIMIT {
                        return Err(self.failed(Operation::ResetBus, error));
                    }
                    thread::sleep(ANSWER_POLL);
                }
                Ok(())
            }
            result => result.map_err(|source| self.failed(Operation::ResetBus, source)),
        }
    }

    /// The command, with the groups of all functions on the bus where it requires those.
    fn hot_reset(&self) -> io::Result<()> {
        let Some(groups) = self.groups() else {
            return retried(|| sys::hot_reset(self.fd(), &[])).map(drop);
        };
        let hits = sys::hot_reset_info(self.fd())?;
        let wanted: Vec<_> = hits.iter().map(|hit| GroupNode::new(hit.id)).collect();
        groups
            .with(&wanted, |files| {
                retried(|| sys::hot_reset(self.fd(), files))
            })
            .map(drop)
    }

    /// Whether the function does not answer. VFIO answers for its IDs itself, so the class is read.
    fn is_silent(&self) -> Result<bool, Error> {
        let class = [REVISION, CLASS].map(|offset| self.config_word(offset));
        let [low, high] = class;
        Ok(low? == u16::MAX && high? == u16::MAX)
    }
}

impl PciSysfs {
    /// How a run will reset `bdf`, as far as sysfs shows that before the device is bound. `owned`
    /// returns which others on its bus the run will have, too.
    ///
    /// # Errors
    /// [`Error::NoDevice`], [`Error::Read`]
    pub fn expected_reset(
        &self,
        bdf: Bdf,
        owned: impl Fn(Bdf) -> bool,
    ) -> Result<ResetMethod, Error> {
        let methods = self.reset_methods(bdf)?;
        // With a trusted function reset the bus does not matter.
        let is_own = |method: &String| is_trusted(method) && method != BUS_RESET;
        let behind = match methods.first().is_some_and(is_own) {
            true => Vec::new(),
            false => self.on_bus(bdf),
        };
        let has_bus_reset = behind.len() > 1 || self.lists_bus_reset(bdf, &methods)?;
        let affected = |other: &Bdf| Affected {
            bdf: *other,
            owned: *other == bdf || owned(*other),
        };
        // VFIO_DEVICE_RESET takes the first that works.
        let own = alone(methods, &behind).into_iter().next();
        ResetMethod::choose(own.as_deref(), || match has_bus_reset {
            true => Ok(behind.iter().map(affected).collect()),
            false => Ok(Vec::new()),
        })
    }

    /// All functions behind the bridge above `bdf`, itself among them; none on a root bus.
    pub(crate) fn on_bus(&self, bdf: Bdf) -> Vec<Bdf> {
        let behind = self.parent(bdf).map(|parent| self.behind(parent));
        behind.unwrap_or_default()
    }

    /// Whether the bus of a function that is alone on it can be reset: the kernel lists that among the function's
    /// own `methods`, unless its user took it out. A function without any method has no list.
    fn lists_bus_reset(&self, bdf: Bdf, methods: &[String]) -> Result<bool, Error> {
        let is_listed = methods.iter().any(|method| method == BUS_RESET);
        let is_emptied = methods.is_empty() && self.directory(bdf)?.join("reset_method").exists();
        Ok(is_listed || is_emptied)
    }
}

/// Those of the kernel's `methods` that reset a function alone, whose bus has the functions `behind`. For the
/// function that it finds first on a bus the kernel lists a reset of the bus even if others follow
/// (drivers/pci/probe.c pci_device_add), and refuses it then.
pub(crate) fn alone(mut methods: Vec<String>, behind: &[Bdf]) -> Vec<String> {
    if behind.len() > 1 {
        methods.retain(|method| method != BUS_RESET);
    }
    methods
}

#[cfg(test)]
mod tests;
