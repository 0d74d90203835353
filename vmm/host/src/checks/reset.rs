//! Judges how a PCI function can be reset.

use address::Bdf;
use iommufd_backend::strongest;

use crate::checks::device::names;
use crate::checks::id::Id;
use crate::checks::line::Line;
use crate::facts::device::Siblings;
use crate::sys_root::SysRoot;

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
