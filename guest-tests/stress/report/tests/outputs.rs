// SPDX-License-Identifier: Apache-2.0 OR BSD-3-Clause

//! Pages and JSON of runs that could have been.

mod common;

use common::{failing, passing};
use serde_json::Value;
use stress_report::{Landmark, from_json, html, json, write_html, write_json};

#[test]
fn json_has_the_names_that_are_documented() {
    let report = failing().report();
    let text = json(&report).unwrap();
    let value: Value = serde_json::from_str(&text).unwrap();
    for (pointer, expected) in [
        ("/format", Value::from(1)),
        ("/verdict", "failed".into()),
        ("/reasons/0/kind", "tests-failed".into()),
        ("/reasons/0/failed", 1.into()),
        ("/reasons/0/text", "1 of 12 tests failed".into()),
        ("/start/seed", 7.into()),
        ("/start/mode", "identity".into()),
        ("/planned", 12.into()),
        ("/tests/4/ok", false.into()),
        ("/engines/2/interrupt", "msix".into()),
        ("/findings/0/kind", "wrong-extent".into()),
        ("/finding_counts/0/count", 3.into()),
        ("/findings/0/gpa", "0x108801400".into()),
        ("/totals/mismatches", 3.into()),
        ("/setup/extents/2/hpa", "0x10e200000".into()),
        ("/setup/bars/0/name", "00:01.0 BAR0".into()),
        ("/outcome/status", 1.into()),
        ("/outcome/ending/kind", "powered-off".into()),
        ("/outcome/refusals/last/0/address", "0x9f000".into()),
        ("/outcome/mediated/0/device", "0000:01:00.0".into()),
        ("/outcome/mediated/0/refused", 5.into()),
        ("/outcome/mediated/0/reasons/0/reason", "length".into()),
        ("/outcome/mediated/0/reasons/1/count", 4.into()),
        ("/provoked/most", 3.into()),
        ("/bail_out", Value::Null),
        ("/left/tests", 0.into()),
    ] {
        assert_eq!(value.pointer(pointer), Some(&expected), "{pointer}");
    }
    assert_eq!(from_json(&text).unwrap(), report);
    let mut before = value;
    before["outcome"]
        .as_object_mut()
        .unwrap()
        .remove("mediated");
    before.as_object_mut().unwrap().remove("provoked");
    assert!(from_json(&before.to_string()).is_ok(), "the fields are new");
    assert!(from_json(&text.replace("0x9f000", "9f000")).is_err());
    assert!(from_json(&text.replace("wrong-extent", "wrong")).is_err());
}

#[test]
fn pages_need_nothing_else_and_show_what_matters() {
    for (run, parts) in [
        (
            passing(30),
            &[
                "passed",
                "12 of 12",
                "4.19 µs",
                "00:01.0 BAR0",
                "kernel image",
            ][..],
        ),
        (
            failing(),
            &[
                "failed",
                "translated; the guest provoked 1 to 3 refusals.",
                "210 started, 5 refused",
                "length 1, not-memory 4",
                "The monitor refused 5 transfers, of which the guest provoked at most 3",
                "Data in the wrong piece of RAM: 3 findings",
                "is 0x1_0e20_0000",
                "0x7fff_ffff_f000",
            ],
        ),
    ] {
        let page = html(&run.report()).unwrap();
        for part in parts {
            assert!(page.contains(part), "{part}");
        }
        assert_eq!(page.matches("<svg").count(), 3);
        let without_namespace = page.replace("xmlns=\"http://www.w3.org/2000/svg\"", "");
        for outside in ["http:", "https:", "src=", "<link", "@import", "url("] {
            assert!(!without_namespace.contains(outside), "{outside}");
        }
    }
}

#[test]
fn what_the_guest_prints_is_shown_and_not_obeyed() {
    let mut run = passing(2);
    let evil = "<script>alert('&amp;')</script>";
    run.serial = run.serial.replace("edu 1: factorial", evil);
    run.setup.landmarks[1].name = "<b>K".into();
    run.setup.command_line = "pinvisor \"<i>\"".into();
    let page = html(&run.report()).unwrap();
    assert!(!page.contains("<script") && !page.contains("<b>K") && !page.contains("<i>\""));
    assert!(page.contains("&#60;script&#62;alert(&#39;&#38;amp;&#39;)"));
    assert!(page.contains("&lt;b&gt;K"));
}

#[test]
fn names_on_the_map_do_not_run_into_each_other() {
    let mut run = passing(1);
    let gpa = run.setup.landmarks[1].gpa;
    let names = ["a name that needs more room than it has", "its neighbour"];
    run.setup.landmarks = (0..)
        .zip(names)
        .map(|(number, name)| Landmark {
            name: name.into(),
            gpa: gpa + number * 0x1000,
            len: 0x1000,
        })
        .collect();
    let page = html(&run.report()).unwrap();
    let seen = names.map(|name| page.matches(name).count());
    assert_eq!(
        seen,
        [1, 2],
        "whole in the table, and on the map if there is room"
    );
}

#[test]
fn a_silent_guest_gives_a_page_too() {
    let mut run = passing(1);
    run.serial.clear();
    run.setup = stress_report::Setup::default();
    let page = html(&run.report()).unwrap();
    assert!(page.contains("The guest did not identify itself"));
    assert_eq!(page.matches("<svg").count(), 0);
}

#[test]
fn files_are_written() {
    let directory = tempfile::tempdir().unwrap();
    let report = passing(3).report();
    let path = directory.path().join("report");
    write_json(&report, &path).unwrap();
    assert_eq!(
        from_json(&std::fs::read_to_string(&path).unwrap()).unwrap(),
        report
    );
    write_html(&report, &path).unwrap();
    assert!(
        std::fs::read_to_string(&path)
            .unwrap()
            .starts_with("<!DOCTYPE html>")
    );
    let nowhere = directory.path().join("none/report");
    let error = write_json(&report, &nowhere).unwrap_err();
    assert!(error.to_string().starts_with("Cannot write /"));
}
