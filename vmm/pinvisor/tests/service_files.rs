// SPDX-License-Identifier: Apache-2.0 OR BSD-3-Clause

//! The unit for systemd and the example of a container hold to the rules on which runs rely.

use std::fs;
use std::path::Path;

use clap::Parser;
use pinvisor::cli::Cli;
use serde_json::{Value, json};

/// The text of a file of the package: none if it cannot be read, which no test accepts.
fn text(name: &str) -> String {
    fs::read_to_string(Path::new(env!("CARGO_MANIFEST_DIR")).join(name)).unwrap_or_default()
}

/// The values of `key` in the unit, in their order.
fn values(key: &str) -> Vec<String> {
    let unit = text("systemd/pinvisor@.service");
    let pairs = unit.lines().filter_map(|line| line.split_once('='));
    pairs
        .filter(|(name, _)| *name == key)
        .map(|(_, value)| value.to_owned())
        .collect()
}

#[test]
fn a_stop_of_the_unit_spares_the_keeper() {
    for (key, value) in [
        ("Type", "notify"),
        ("NotifyAccess", "main"),
        ("KillMode", "process"),
        // SIGTERM presses the power button.
        ("KillSignal", "SIGTERM"),
        // `kill` would kill the keeper.
        ("OOMPolicy", "stop"),
        // The keeper is found after the stop.
        ("RuntimeDirectory", "pinvisor"),
        ("RuntimeDirectoryPreserve", "yes"),
        ("LimitCORE", "0"),
        // Capabilities count in the initial user namespace only.
        ("PrivateUsers", "no"),
        // /sys stays writable, and /proc/iomem readable.
        ("ProtectKernelTunables", "no"),
        ("ProcSubset", "all"),
        ("NoNewPrivileges", "yes"),
    ] {
        assert_eq!(values(key), [value], "{key}");
    }
    assert_eq!(values("WatchdogSec").len(), 1);
    // systemd would send SIGTERM at once after it, which ends a guest whose power button was pressed.
    assert!(values("ExecStop").is_empty());
}

#[test]
fn the_commands_of_unit_and_container_are_valid() {
    let start = &values("ExecStart")[0];
    let words = start.replace("%i", "disk");
    assert!(Cli::try_parse_from(words.split(' ')).is_ok(), "{start}");
    let config: Value = serde_json::from_str(&text("container/config.json")).unwrap();
    let words = config["process"]["args"].as_array().unwrap();
    let words = words.iter().map(|word| word.as_str().unwrap());
    assert!(Cli::try_parse_from(words).is_ok());
}

#[test]
fn the_container_has_few_rights() {
    let config: Value = serde_json::from_str(&text("container/config.json")).unwrap();
    let process = &config["process"];
    for set in ["bounding", "permitted", "effective"] {
        let expected = json!(["CAP_SYS_RAWIO", "CAP_IPC_LOCK"]);
        assert_eq!(process["capabilities"][set], expected, "{set}");
    }
    assert_eq!(process["noNewPrivileges"], true);
    let namespaces = config["linux"]["namespaces"].as_array().unwrap();
    assert!(namespaces.iter().all(|kind| kind["type"] != "user"));
    // Each node has a rule, and nothing else does.
    let number = |entry: &Value| (entry["major"].clone(), entry["minor"].clone());
    let nodes: Vec<_> = config["linux"]["devices"]
        .as_array()
        .unwrap()
        .iter()
        .map(number)
        .collect();
    let rules = config["linux"]["resources"]["devices"].as_array().unwrap();
    assert_eq!(rules[0], json!({"allow": false, "access": "rwm"}));
    let allowed: Vec<_> = rules[1..].iter().map(number).collect();
    assert_eq!(allowed, nodes);
}
