// SPDX-License-Identifier: Apache-2.0 OR BSD-3-Clause

//! Checks whether devices can have the requested DMA modes.

use address::Bdf;

use crate::checks::id::Id;
use crate::checks::line::Line;
use crate::facts::dma_mode::{DmaConflict, ResolvedDma, conflicting};
use crate::facts::guarded::guard_obstacle;
use crate::sys_root::SysRoot;
use crate::wanted::{Mediation, WantedDevice};

/// [`Id::DeviceDmaMode`], of `device`, which goes to one guest with `all`.
pub(crate) fn check(root: &SysRoot, device: &WantedDevice, all: &[WantedDevice]) -> Line {
    let id = Id::DeviceDmaMode;
    let mode = match device.mode(root) {
        Ok(mode) => mode,
        Err(conflict) => return impossible(device.bdf, conflict).of(device.bdf),
    };
    if mode == ResolvedDma::Mediate {
        match &device.mediation {
            Mediation::Profile => {}
            Mediation::NoProfile(reason) => {
                let hint = format!("pinvisor check {},dma=mediate,profile=FILE", device.bdf);
                return Line::fail(id, format!("mediate: {reason}"), hint).of(device.bdf);
            }
            Mediation::Guarded => return guarded(root, device.bdf).of(device.bdf),
        }
    }
    let others = all
        .iter()
        .filter_map(|other| Some((other.bdf, other.mode(root).ok()?)));
    // One whose guest translates is fine: the others are not.
    let other = conflicting(mode, others).filter(|_| mode != ResolvedDma::Translate);
    if let Some(other) = other {
        return Line::fail(
            id,
            format!(
                "{}: cannot be combined with {} (dma=translate) in one guest",
                mode.name(),
                other
            ),
            format!(
                "pinvisor check {}  # and run the two in separate guests",
                device.bdf
            ),
        )
        .of(device.bdf);
    }
    Line::ok(id, format!("{}: {}", mode.name(), meaning(mode))).of(device.bdf)
}

/// Whether an NVMe controller can be guarded, as far as it shows before it is bound.
fn guarded(root: &SysRoot, bdf: Bdf) -> Line {
    let id = Id::DeviceDmaMode;
    match guard_obstacle(root, bdf) {
        None => Line::ok(
            id,
            "mediate: guarded NVMe: the monitor checks and translates every address in its commands. \
             A run still refuses it if its registers require pages of more than 4 KiB; its \
             subsystem must have no other controller, and namespaces with metadata are hidden",
        ),
        Some(obstacle) => Line::fail(
            id,
            format!("mediate: it cannot be guarded: {obstacle}"),
            format!("pinvisor check {bdf}  # {}", obstacle.hint()),
        ),
    }
}

fn impossible(bdf: Bdf, conflict: DmaConflict) -> Line {
    let (text, hint) = match conflict {
        DmaConflict::NotBehindIommu => (
            "iommu: this device is not behind an IOMMU",
            format!("pinvisor check {bdf}  # without dma=iommu"),
        ),
        DmaConflict::BehindIommu => (
            "an IOMMU translates for this device, so dma=identity, translate and mediate do not apply",
            format!("pinvisor check {bdf}  # without dma="),
        ),
    };
    Line::fail(Id::DeviceDmaMode, text, hint)
}

fn meaning(mode: ResolvedDma) -> &'static str {
    match mode {
        ResolvedDma::Iommu => "an IOMMU translates its addresses",
        ResolvedDma::Identity => {
            "guest memory is at its host-physical addresses (GPA = HPA), in hugepages"
        }
        ResolvedDma::Translate => "the guest's driver translates addresses, through the DMA window",
        ResolvedDma::Mediate => "the monitor translates addresses in registers, by a profile",
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::checks::line::Verdict;
    use crate::facts::dma_mode::DmaMode;
    use crate::sys_root::tests::Fake;

    #[test]
    fn the_mode_of_a_run_is_judged() {
        let fake = Fake::new();
        let disk = fake.disk();
        let device = |dma| WantedDevice { dma, ..disk.into() };
        let judge = |device: &WantedDevice, other: DmaMode| {
            let other = WantedDevice {
                dma: other,
                ..WantedDevice::from("02:00.0".parse::<Bdf>().unwrap())
            };
            check(&fake.root, device, &[device.clone(), other])
        };
        let alone = |dma| judge(&device(dma), DmaMode::Mediate);
        for (dma, name) in [
            (DmaMode::Auto, "identity: "),
            (DmaMode::Translate, "translate: "),
            (DmaMode::Mediate, "mediate: "),
        ] {
            let line = alone(dma);
            assert_eq!(line.verdict, Verdict::Ok);
            assert!(line.text.starts_with(name), "{}", line.text);
            assert_eq!(line.device, Some(disk));
        }
        assert_eq!(alone(DmaMode::Iommu).verdict, Verdict::Fail);
        let without = WantedDevice {
            mediation: Mediation::NoProfile("Pinvisor includes no profile".into()),
            ..device(DmaMode::Mediate)
        };
        let line = judge(&without, DmaMode::Mediate);
        assert_eq!(line.verdict, Verdict::Fail);
        assert!(
            line.text.contains("Pinvisor includes no profile"),
            "{}",
            line.text
        );
        let guarded = WantedDevice {
            mediation: Mediation::Guarded,
            ..device(DmaMode::Mediate)
        };
        let line = judge(&guarded, DmaMode::Translate);
        assert_eq!(line.verdict, Verdict::Ok);
        assert!(line.text.contains("guarded NVMe"), "{}", line.text);
        fake.directory("sys/bus/pci/devices/0000:01:00.0/physfn");
        let line = judge(&guarded, DmaMode::Translate);
        assert_eq!(line.verdict, Verdict::Fail);
        assert!(line.text.contains("virtual function"), "{}", line.text);
        for (dma, verdict) in [
            (DmaMode::Auto, Verdict::Fail),
            (DmaMode::Mediate, Verdict::Ok),
            (DmaMode::Translate, Verdict::Ok),
        ] {
            let line = judge(&device(dma), DmaMode::Translate);
            assert_eq!(line.verdict, verdict, "{dma:?}");
        }
    }

    #[test]
    fn behind_an_iommu_no_other_mode_is_possible() {
        let fake = Fake::new();
        let disk = fake.disk();
        fake.directory("sys/bus/pci/devices/0000:01:00.0/vfio-dev/vfio0");
        let judge = |dma| {
            let device = WantedDevice { dma, ..disk.into() };
            check(&fake.root, &device, std::slice::from_ref(&device)).verdict
        };
        assert_eq!(judge(DmaMode::Auto), Verdict::Ok);
        assert_eq!(judge(DmaMode::Iommu), Verdict::Ok);
        for dma in [DmaMode::Identity, DmaMode::Translate, DmaMode::Mediate] {
            assert_eq!(judge(dma), Verdict::Fail, "{dma:?}");
        }
    }
}
