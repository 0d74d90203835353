//! How a PCI function can be reset, and who shares that with it.

use address::Bdf;
use iommufd_backend::strongest;

use crate::checks::device::{is_express, names};
use crate::checks::id::Id;
use crate::checks::line::Line;
use crate::sys_root::SysRoot;

/// The functions on a function's bus.
pub(crate) struct Siblings {
    /// All others on the same bus.
    pub(crate) others: Vec<Bdf>,
    /// Whether the bus belongs to a bridge, which can reset it.
    pub(crate) is_behind_bridge: bool,
    /// Whether the bus is a conventional one, on which all have the bridge's requester ID.
    pub(crate) is_conventional: bool,
}

impl Siblings {
    pub(crate) fn of(root: &SysRoot, bdf: Bdf) -> Self {
        let on_bus = |other: &Bdf| {
            *other != bdf && (other.domain(), other.bus()) == (bdf.domain(), bdf.bus())
        };
        let mut others = root.pci().functions().unwrap_or_default();
        others.retain(on_bus);
        let function = root.function(bdf);
        let above = function.as_deref().and_then(|function| function.parent());
        let is_behind_bridge = above
            .and_then(|above| above.file_name()?.to_str()?.parse::<Bdf>().ok())
            .is_some();
        Self {
            others,
            is_behind_bridge,
            is_conventional: is_behind_bridge && !is_express(root, bdf),
        }
    }
}

/// The kernel's word for a reset by D3hot and back, which is the last choice.
const PM: &str = "pm";

/// How it is reset.
pub(crate) fn check(root: &SysRoot, bdf: Bdf, siblings: &Siblings) -> Line {
    let id = Id::DeviceReset;
    let methods = root.pci().reset_methods(bdf).unwrap_or_default();
    let best = strongest(&methods);
    let accept = format!("pinvisor run --device {bdf},reset=none ...");
    match best.filter(|method| !method.contains("bus")) {
        Some(PM) if siblings.is_behind_bridge && !siblings.others.is_empty() => {
            return Line::warn(
                id,
                format!(
                    "By a stay in D3hot (pm), which may leave it running; a run with {} resets \
                     their bus instead",
                    names(&siblings.others, ", ")
                ),
                format!(
                    "pinvisor run --device {bdf} --device {} ...",
                    names(&siblings.others, " --device ")
                ),
            );
        }
        Some(method) => return Line::ok(id, format!("By itself ({method})")),
        None => {}
    }
    if !siblings.is_behind_bridge {
        return Line::fail(
            id,
            "It cannot be reset, and neither can its bus: its next user inherits what it is doing",
            format!("move it behind a bridge; or accept that: {accept}"),
        );
    }
    if siblings.others.is_empty() {
        let not_pm = match methods.iter().any(|method| method == PM) {
            true => "; its own reset, by D3hot (pm), is not trusted",
            false => "",
        };
        return Line::ok(
            id,
            format!("With its bus, on which it is alone (bus){not_pm}"),
        );
    }
    Line::warn(
        id,
        format!(
            "Only with its bus, together with {}: all of them go to one guest",
            names(&siblings.others, ", ")
        ),
        format!(
            "pinvisor run --device {bdf} --device {} ...",
            names(&siblings.others, " --device ")
        ),
    )
}
