//! The ways to reset a PCI function.

use std::fmt;
use std::thread;
use std::time::{Duration, Instant};

use address::Bdf;
use pci_config::regs::{CLASS, REVISION};

use crate::device::{VfioDevice, retried};
use crate::error::Error;
use crate::evidence::ConfigSpace;
use crate::operation::Operation;
use crate::pci_sysfs::PciSysfs;
use crate::sys::{self, Affected};

/// The kernel's word for a reset by D3hot and back (drivers/pci/pci.c pci_reset_fn_methods).
pub(crate) const PM: &str = "pm";

/// How long a function may take to answer after a reset (PCI Express Base Specification, section 2.3.1: 1 s).
const ANSWER_LIMIT: Duration = Duration::from_secs(1);
const ANSWER_POLL: Duration = Duration::from_millis(10);

/// How a device can be reset by its user.
#[derive(Clone, Debug, PartialEq, Eq)]
pub enum ResetMethod {
    /// By itself, in the kernel's word for how: `flr`, `bus` if it is alone on it, ...
    Function(String),
    /// Only together with all functions on its bus, which are all bound to the same
    /// `/dev/iommu`; or alone on its bus, because its own reset is not trusted.
    Bus(Vec<Bdf>),
    /// Not at all. A reset of its bus would hit `others`, which are not bound here; without any,
    /// its bus has no reset either.
    None {
        /// Functions that stand in the way.
        others: Vec<Bdf>,
    },
}

impl fmt::Display for ResetMethod {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        match self {
            Self::Function(method) => f.write_str(method),
            Self::Bus(_) => f.write_str("bus"),
            Self::None { .. } => f.write_str("none"),
        }
    }
}

/// The strongest of the kernel's `methods`, which stand in the order in which it tries them: the
/// first, unless that is a PM reset and the bus can be reset. A function that goes to D3hot and
/// back need not stop anything (PCI Express Base Specification, section 5.3.1.4: its state after
/// that is undefined), and some, as QEMU's e1000e, keep their rings.
#[must_use]
pub fn strongest(methods: &[String]) -> Option<&str> {
    let is_strong = |method: &&String| *method != PM;
    let found = methods.iter().find(is_strong).or(methods.first());
    found.map(String::as_str)
}

/// Whether the kernel's first reset of a function resets it as a function-level reset does: a PM reset
/// need not, and `VFIO_DEVICE_RESET` takes the first.
fn is_function_reset(own: Option<&str>) -> bool {
    own.is_some_and(|own| own != PM)
}

/// The reset of a function that has `own` as the kernel's first one, and whose bus is shared with
/// no functions but `affected`, itself among them; none of them where the bus has no reset.
fn choose(own: Option<&str>, affected: &[Affected]) -> ResetMethod {
    if let Some(own) = own.filter(|own| is_function_reset(Some(own))) {
        return ResetMethod::Function(own.to_owned());
    }
    let (owned, others): (Vec<_>, Vec<_>) = affected.iter().partition(|function| function.owned);
    let names = |list: Vec<&Affected>| list.iter().map(|function| function.bdf).collect();
    match own {
        _ if others.is_empty() && !owned.is_empty() => ResetMethod::Bus(names(owned)),
        Some(own) => ResetMethod::Function(own.to_owned()),
        None => ResetMethod::None {
            others: names(others),
        },
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

/// Resets `functions` by their methods, each bus once. One result for each function, in order.
pub fn reset_each<F: Resettable>(functions: &[(&F, &ResetMethod)]) -> Vec<Result<(), Error>> {
    // Functions whose bus was reset, and those of them whose bus refused.
    let (mut done, mut failed) = (Vec::new(), Vec::new());
    let mut reset = |function: &F, method: &ResetMethod| match method {
        ResetMethod::Function(_) => function.reset(),
        ResetMethod::None { .. } => Ok(()),
        ResetMethod::Bus(_) if failed.contains(&function.bdf()) => Err(Error::DeviceUnusable {
            bdf: function.bdf(),
            reason: "its bus, which it shares, was not reset".into(),
        }),
        ResetMethod::Bus(_) if done.contains(&function.bdf()) => Ok(()),
        ResetMethod::Bus(all) => {
            let result = function.reset_bus();
            match result {
                Ok(()) => done.extend(all),
                Err(_) => failed.extend(all),
            }
            result
        }
    };
    let all = functions.iter();
    all.map(|(function, method)| reset(function, method))
        .collect()
}

impl VfioDevice {
    /// The strongest way to reset the device. All devices that share its bus must be bound by now.
    ///
    /// # Errors
    /// [`Error::Device`], [`Error::Read`]
    pub fn reset_method(&self, sysfs: &PciSysfs) -> Result<ResetMethod, Error> {
        let own = self.own_reset(sysfs)?;
        // Only asked for where it matters.
        let affected = match own.as_deref() {
            Some(own) if own != PM => Vec::new(),
            _ => self.affected()?,
        };
        Ok(choose(own.as_deref(), &affected))
    }

    /// How the kernel resets the function alone, in its own word; `None` if it cannot.
    ///
    /// # Errors
    /// [`Error::Read`]
    pub fn own_reset(&self, sysfs: &PciSysfs) -> Result<Option<String>, Error> {
        let methods = sysfs.reset_methods(self.bdf())?.into_iter();
        let first = methods.take(1).next();
        let own = self.is_resettable();
        Ok(own.then(|| first.unwrap_or_else(|| "function".to_owned())))
    }

    /// Whether [`reset`](Self::reset) is as good as the function-level reset that a user may expect.
    ///
    /// # Errors
    /// [`Error::Read`]
    pub fn has_function_reset(&self, sysfs: &PciSysfs) -> Result<bool, Error> {
        Ok(is_function_reset(self.own_reset(sysfs)?.as_deref()))
    }

    /// What a reset of the device's bus would reset; nothing if that has no reset.
    fn affected(&self) -> Result<Vec<Affected>, Error> {
        match sys::hot_reset_info(self.fd()) {
            Ok(affected) => Ok(affected),
            // Its bus has no reset: it is a root bus.
            Err(error) if error.raw_os_error() == Some(libc::ENODEV) => Ok(Vec::new()),
            Err(source) => Err(self.failed(Operation::DescribeBusReset, source)),
        }
    }

    /// Resets the function (`VFIO_DEVICE_RESET`), by the first of the kernel's methods. Config
    /// space comes back as it was, bus mastering included.
    ///
    /// # Errors
    /// [`Error::Device`], with `EINVAL` where the function has no reset of its own.
    pub fn reset(&self) -> Result<(), Error> {
        retried(|| sys::reset(self.fd()))
            .map(drop)
            .map_err(|source| self.failed(Operation::Reset, source))
    }

    /// Resets all functions on the device's bus (`VFIO_DEVICE_PCI_HOT_RESET`). Their config
    /// space comes back as it was, bus mastering included. Where the kernel did not wait until they answer (ENOTTY of
    /// drivers/pci/pci.c pci_bridge_wait_for_secondary_bus: the link's state cannot be told), waits until this one does.
    /// BARs that the kernel restored too early then come back with the next write of COMMAND
    /// (drivers/vfio/pci/vfio_pci_config.c vfio_need_bar_restore).
    ///
    /// # Errors
    /// [`Error::Device`], with `EINVAL` unless [`reset_method`](Self::reset_method) says
    /// [`ResetMethod::Bus`].
    pub fn reset_bus(&self) -> Result<(), Error> {
        let result = retried(|| sys::hot_reset(self.fd())).map(drop);
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

    /// Whether the function does not answer. VFIO answers for its IDs itself, so the class is read.
    fn is_silent(&self) -> Result<bool, Error> {
        let class = [REVISION, CLASS].map(|offset| self.config_word(offset));
        let [low, high] = class;
        Ok(low? == u16::MAX && high? == u16::MAX)
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn affected(owned: &[bool]) -> Vec<Affected> {
        let function = |(number, owned): (u8, &bool)| Affected {
            bdf: Bdf::new(0, 1, 0, number).unwrap(),
            owned: *owned,
        };
        (0..).zip(owned).map(function).collect()
    }

    #[test]
    fn a_pm_reset_is_the_last_choice() {
        let own = |method: &str| ResetMethod::Function(method.into());
        let bus = |list: &[Affected]| ResetMethod::Bus(list.iter().map(|one| one.bdf).collect());
        let (alone, both, one) = (
            affected(&[true]),
            affected(&[true, true]),
            affected(&[true, false]),
        );
        assert_eq!(choose(Some("flr"), &[]), own("flr"));
        assert_eq!(choose(Some("bus"), &alone), own("bus"));
        assert_eq!(choose(Some(PM), &alone), bus(&alone));
        assert_eq!(choose(Some(PM), &both), bus(&both));
        assert_eq!(choose(Some(PM), &one), own(PM));
        assert_eq!(choose(Some(PM), &[]), own(PM));
        assert_eq!(choose(None, &both), bus(&both));
        let others = vec![one[1].bdf];
        assert_eq!(choose(None, &one), ResetMethod::None { others });
        assert_eq!(choose(None, &[]), ResetMethod::None { others: vec![] });
    }

    #[test]
    fn a_pm_reset_is_no_function_reset() {
        let own = [Some("flr"), Some("bus"), Some("function"), Some(PM), None];
        let are = own.map(is_function_reset);
        assert_eq!(are, [true, true, true, false, false]);
    }

    #[test]
    fn the_kernels_order_counts_but_for_pm() {
        let words = |text: &str| -> Vec<String> { text.split(' ').map(str::to_owned).collect() };
        assert_eq!(strongest(&words("flr bus")), Some("flr"));
        assert_eq!(strongest(&words("pm bus")), Some("bus"));
        assert_eq!(strongest(&words("bus flr")), Some("bus"));
        assert_eq!(strongest(&words("pm")), Some("pm"));
        assert_eq!(strongest(&[]), None);
    }
}
