// SPDX-License-Identifier: Apache-2.0 OR BSD-3-Clause

use super::super::subject::{BLOCK, HIGH, TOGETHER};
use super::*;
use crate::machine::Status;

/// What a start prints and QEMU sees when all is well. `@` is replaced by the guest's own lines.
const SECTION: &str = "\
testbed: section 0 STEP
testbed: before_free=214
pinvisor: info: extent gpa=0x200000 hpa=0x200000 len=0x200000
@testbed: status=0
testbed: notes begin
 pinvisor-9 [0] 1.0: config_word: (pci_user_write_config_word+0x4/0x6e) where=0x4 value=0x7
 pinvisor-9 [0] 2.0: config_word: (pci_user_write_config_word+0x4/0x6e) where=0x4 value=0x3
 pinvisor-9 [0] 3.0: close_device: (vfio_device_fops_release+0x4/0x38)
testbed: notes end
testbed: after_free=214
testbed: processes=0
[    5.538528] vfio-pci 0000:01:00.0: resetting
[    5.539586] vfio-pci 0000:01:00.1: resetting
testbed: section end
";

const CANARY: &str = "\
testbed: back0_held=150
testbed: back0_changed=0
testbed: back1_held=150
testbed: back1_changed=0
testbed: back2_held=150
testbed: back2_changed=0
testbed: canary_changed=0
testbed: canary_moved=0
testbed: watched=0
";

fn trace(starts: usize) -> String {
    let mark = |value: u8| format!("pci_cfg_write ICH9-SMB 00:1f.3 @0x3c <- {value:#x}\n");
    let command = |value: u8| {
        format!(
            "pci_cfg_write nvme 01:00.0 @0x4 <- {value:#x}\npci_cfg_write nvme 01:00.1 @0x4 <- {value:#x}\n"
        )
    };
    let one = |number| {
        let (begin, end) = marks(number);
        [mark(begin), command(7), command(3), mark(end)].concat()
    };
    (0..starts).map(one).collect()
}

fn nvme_guest(before: &str, after: &str) -> String {
    format!("guest: disk-nvme0n1={before} {after}\nguest: function-01.0=nvme msix 93\n")
}

fn section_of(step: Step, guest: &str) -> String {
    let section = SECTION.replace("STEP", &format!("{step:?}"));
    section.replace('@', guest)
}

fn nvme_output() -> String {
    [
        "testbed: bdf_0=0000:01:00.0\n".to_string(),
        section_of(Step::First, &nvme_guest("d0", "d1")),
        section_of(Step::Again, &nvme_guest("d1", "d2")),
        CANARY.into(),
    ]
    .concat()
}

fn outside(disks: usize) -> Outside {
    let hashes = ["d0", "d1", "d2"].map(String::from);
    Outside {
        handed_back: true,
        by_group: false,
        disks: (0..disks).map(|number| (number, hashes.clone())).collect(),
        left: (0..disks).map(|number| (number, "d2".into())).collect(),
        served: ["s".into(), "f".into()],
    }
}

fn problems(subjects: &[Subject], outside: &Outside, output: String, trace: String) -> Vec<Aspect> {
    let outcome = Outcome {
        status: Status::Exited(0),
        output,
        console: String::new(),
        trace,
    };
    let row = judge(subjects, outside, &outcome, 0, 0);
    let mut aspects: Vec<Aspect> = row.problems.iter().map(|(aspect, _)| *aspect).collect();
    aspects.sort_unstable();
    aspects.dedup();
    aspects
}

fn nvme_problems(output: String, trace: String) -> Vec<Aspect> {
    problems(&BLOCK[..1], &outside(1), output, trace)
}

#[test]
fn what_is_well_passes() {
    assert_eq!(nvme_problems(nvme_output(), trace(2)), []);
}

#[test]
fn the_other_way_to_a_device_shows() {
    let outside = Outside {
        by_group: true,
        ..outside(1)
    };
    let found = problems(&BLOCK[..1], &outside, nvme_output(), trace(2));
    assert_eq!(found, [Aspect::End]);
}

#[test]
fn each_thing_that_goes_wrong_shows_in_its_column() {
    for (from, to, aspect) in [
        ("function-01.0=nvme ", "function-01.0=other ", Aspect::Probe),
        ("disk-nvme0n1=d0 d1", "disk-nvme0n1=d0 d0", Aspect::Work),
        ("disk-nvme0n1=d0 d1", "disk-nvme0n1=x d1", Aspect::Work),
        ("guest: disk-nvme0n1=d0 d1\n", "", Aspect::Work),
        ("disk-nvme0n1=d1 d2", "disk-nvme0n1=d0 d1", Aspect::Again),
        ("status=0", "status=5", Aspect::End),
        ("after_free=214", "after_free=213", Aspect::End),
        ("processes=0", "processes=1", Aspect::End),
        ("where=0x4 value=0x3", "where=0x4 value=0x7", Aspect::End),
        ("section 0 Again", "section 0 Other", Aspect::End),
        ("watched=0", "watched=9", Aspect::Canary),
        ("back1_changed=0", "back1_changed=488", Aspect::Again),
        ("back0_held=150", "back0_held=0", Aspect::Again),
        ("testbed: back1_changed=0\n", "", Aspect::Again),
    ] {
        let output = nvme_output();
        assert!(output.contains(from), "{from}");
        let found = nvme_problems(output.replace(from, to), trace(2));
        assert_eq!(found, [aspect], "{from} -> {to}");
    }
}

#[test]
fn interrupts_of_another_kind_and_none_are_wrong() {
    for to in ["nvme msix 0", "nvme intx 93"] {
        let output = nvme_output().replace("nvme msix 93", to);
        assert_eq!(
            nvme_problems(output, trace(2)),
            [Aspect::Work, Aspect::Again],
            "{to}"
        );
    }
}

#[test]
fn a_device_that_stays_bus_master_is_seen_by_itself() {
    let never_off = trace(2).replace("@0x4 <- 0x3\n", "@0x4 <- 0x7\n");
    assert_eq!(nvme_problems(nvme_output(), never_off), [Aspect::End]);
    let never_on = trace(2).replace("@0x4 <- 0x7\n", "@0x4 <- 0x3\n");
    assert_eq!(nvme_problems(nvme_output(), never_on), [Aspect::End]);
    assert_eq!(nvme_problems(nvme_output(), String::new()), [Aspect::End]);
}

#[test]
fn an_image_that_the_outside_does_not_expect_is_wrong() {
    let mut outside = outside(1);
    outside.left.insert(0, "d1".into());
    let found = problems(&BLOCK[..1], &outside, nvme_output(), trace(2));
    assert_eq!(found, [Aspect::Again]);
}

#[test]
fn one_of_two_functions_is_to_be_refused_and_both_to_be_reset() {
    let guest = |before: &str, after: &str| {
        let disks = ["sda", "sdb"].map(|disk| format!("guest: disk-{disk}={before} {after}\n"));
        let functions = [0, 1].map(|n| format!("guest: function-01.{n}=xhci_hcd msix 264\n"));
        [disks.concat(), functions.concat()].concat()
    };
    let alone = section_of(Step::Alone, "")
        .replace("status=0", "status=3")
        .replace(
            "info: extent gpa=0x200000",
            "error[no-reset]: resetting its bus would also reset 0000:01:00.1",
        );
    let output = [
        "testbed: bdf_0=0000:01:00.0\ntestbed: bdf_1=0000:01:00.1\n".to_string(),
        alone,
        section_of(Step::First, &guest("d0", "d1")),
        section_of(Step::Again, &guest("d1", "d2")),
        CANARY.into(),
    ]
    .concat();
    let found = |output: String| problems(&TOGETHER[..1], &outside(2), output, trace(3));
    assert_eq!(found(output.clone()), []);
    assert_eq!(found(output.replace("status=3", "status=0")), [Aspect::End]);
    assert_eq!(
        found(output.replace("reset 0000:01:00.1", "reset another")),
        [Aspect::Work]
    );
    let not_both = output.replace("01:00.1: resetting", "01:00.1: reset done");
    assert_eq!(found(not_both), [Aspect::Again]);
}

#[test]
fn a_device_that_reaches_no_memory_is_to_be_warned_of() {
    let guest = "pinvisor: warn: 0000:01:00.0: may have only 32 address bits\n\
                 guest: net-eth0=not up\nguest: function-01.0=e1000 intx 0\n";
    let output = [
        "testbed: bdf_0=0000:01:00.0\n".to_string(),
        section_of(Step::OutOfReach, guest),
        CANARY.into(),
    ]
    .concat();
    let found = |output: String| problems(HIGH, &outside(0), output, trace(1));
    assert_eq!(found(output.clone()), []);
    assert_eq!(found(output.replace("warn:", "info:")), [Aspect::Work]);
    assert_eq!(found(output.replace("=not up", "=s f")), [Aspect::Work]);
}
