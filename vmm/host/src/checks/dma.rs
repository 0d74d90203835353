// SPDX-License-Identifier: Apache-2.0 OR BSD-3-Clause

//! Checks whether devices can have the requested DMA modes.

use address::Bdf;

use crate::checks::id::Id;
use crate::checks::line::Line;
use crate::facts::auto_dma::{AutoDma, TooFewHugepages};
use crate::facts::dma_mode::{DmaConflict, DmaMode, ResolvedDma, conflicting};
use crate::facts::guarded::{Driven, guard_obstacle, is_nvme};
use crate::sys_root::SysRoot;
use crate::wanted::{Mediation, WantedDevice};

/// [`Id::DeviceDmaMode`], of `device`, which goes to one guest with `all`, where `auto` was decided.
pub(crate) fn check(
    root: &SysRoot,
    device: &WantedDevice,
    all: &[WantedDevice],
    auto: &AutoDma,
) -> Line {
    let id = Id::DeviceDmaMode;
    let bdf = device.bdf;
    let mode = match device.mode(root, auto) {
        Ok(mode) => mode,
        Err(conflict) => return impossible(bdf, conflict).of(bdf),
    };
    if mode == ResolvedDma::Mediate {
        match (device.dma, auto, &device.mediation) {
            (DmaMode::Auto, AutoDma::Guarded(missing), _) => {
                return guarded(root, bdf, Some(missing)).of(bdf);
            }
            (_, _, Mediation::Profile) => {}
            (_, _, Mediation::NoProfile(reason)) => {
                let hint = format!("pinvisor check {bdf},dma=mediate,profile=FILE");
                return Line::fail(id, format!("mediate: {reason}"), hint).of(bdf);
            }
            (_, _, Mediation::Guarded) => return guarded(root, bdf, None).of(bdf),
        }
    }
    let others = all
        .iter()
        .filter_map(|other| Some((other.bdf, other.mode(root, auto).ok()?)));
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
            format!("pinvisor check {bdf}  # and run the two in separate guests"),
        )
        .of(bdf);
    }
    let more = match mode == ResolvedDma::Identity && is_nvme(root, bdf) {
        true => isolated(root, bdf),
        false => String::new(),
    };
    Line::ok(id, format!("{}: {}{more}", mode.name(), meaning(mode))).of(bdf)
}

/// Whether a controller that is not to be guarded could be.
fn isolated(root: &SysRoot, bdf: Bdf) -> String {
    match guard_obstacle(root, bdf) {
        None => "; dma=mediate would isolate the guest (guarded NVMe)".to_owned(),
        Some(obstacle) => format!("; it cannot be guarded: {obstacle}"),
    }
}

/// Whether an NVMe controller can be guarded, as far as it shows before it is bound; `missing` if `dma=auto` selects
/// that.
fn guarded(root: &SysRoot, bdf: Bdf, missing: Option<&TooFewHugepages>) -> Line {
    let id = Id::DeviceDmaMode;
    if let Some(obstacle) = guard_obstacle(root, bdf) {
        return Line::fail(
            id,
            format!("mediate: it cannot be guarded: {obstacle}"),
            format!("pinvisor check {bdf}  # {}", obstacle.hint()),
        );
    }
    let why = missing.map_or_else(String::new, |missing| {
        format!(" selected by dma=auto, because {missing}")
    });
    let driven = Driven::of(root, bdf).unwrap_or_default();
    // The host's driver has read its registers, and asked what subsystem it is in.
    let unknown = match driven.is_live {
        true => "",
        false => {
            ". A run still refuses it if its registers require pages of more than 4 KiB; its \
             subsystem must have no other controller, and namespaces with metadata are hidden"
        }
    };
    let text = format!(
        "mediate: guarded NVMe{why}: the monitor checks and translates every address in its \
         commands{unknown}"
    );
    if driven.hidden.is_empty() {
        return Line::ok(id, text);
    }
    Line::warn(
        id,
        format!(
            "{text}. The guest does not see what is not supported: {}",
            driven.hidden.join("; ")
        ),
        format!(
            "nvme id-ns -H /dev/nvmeXnY  # lists its formats; nvme format, which erases it, chooses one without \
             metadata; or pinvisor check {bdf},dma=identity if you trust the guest"
        ),
    )
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
    use iommufd_backend::hugepages::HugepageSize;

    use super::*;
    use crate::checks::line::Verdict;
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
            check(
                &fake.root,
                device,
                &[device.clone(), other],
                &AutoDma::Identity,
            )
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
    fn an_nvme_controller_is_judged_whatever_the_mode() {
        let fake = Fake::new();
        let disk = fake.disk();
        let missing = TooFewHugepages {
            size: HugepageSize::Mib2,
            need: 512,
            available: 3,
        };
        let judge = |dma, auto| {
            let device = WantedDevice { dma, ..disk.into() };
            check(&fake.root, &device, std::slice::from_ref(&device), &auto)
        };
        let line = judge(DmaMode::Auto, AutoDma::Identity);
        assert!(line.text.contains("dma=mediate would isolate"), "{line:?}");
        let line = judge(DmaMode::Auto, AutoDma::Guarded(missing));
        assert_eq!(line.verdict, Verdict::Ok);
        assert!(
            line.text
                .contains("selected by dma=auto, because an identity layout requires 512"),
            "{line:?}"
        );
        assert!(line.text.contains("A run still refuses"), "{line:?}");
        let controller = "sys/bus/pci/devices/0000:01:00.0/nvme/nvme0";
        fake.write(&format!("{controller}/state"), "live");
        let line = judge(DmaMode::Auto, AutoDma::Guarded(missing));
        assert!(!line.text.contains("A run still refuses"), "{line:?}");
        fake.write(&format!("{controller}/nvme0n1/nsid"), "1");
        fake.write(&format!("{controller}/nvme0n1/metadata_bytes"), "8");
        let line = judge(DmaMode::Auto, AutoDma::Guarded(missing));
        assert_eq!(line.verdict, Verdict::Warn);
        assert!(
            line.text.contains("namespace 1 has metadata"),
            "{}",
            line.text
        );
        fake.directory("sys/bus/pci/devices/0000:01:00.0/physfn");
        let line = judge(DmaMode::Identity, AutoDma::Identity);
        assert_eq!(line.verdict, Verdict::Ok);
        assert!(line.text.contains("it is a virtual function"), "{line:?}");
    }

    #[test]
    fn behind_an_iommu_no_other_mode_is_possible() {
        let fake = Fake::new();
        let disk = fake.disk();
        fake.directory("sys/bus/pci/devices/0000:01:00.0/vfio-dev/vfio0");
        let judge = |dma| {
            let device = WantedDevice { dma, ..disk.into() };
            let all = std::slice::from_ref(&device);
            check(&fake.root, &device, all, &AutoDma::Identity).verdict
        };
        assert_eq!(judge(DmaMode::Auto), Verdict::Ok);
        assert_eq!(judge(DmaMode::Iommu), Verdict::Ok);
        for dma in [DmaMode::Identity, DmaMode::Translate, DmaMode::Mediate] {
            assert_eq!(judge(dma), Verdict::Fail, "{dma:?}");
        }
    }
}
