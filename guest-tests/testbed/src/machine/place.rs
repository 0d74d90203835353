// SPDX-License-Identifier: Apache-2.0 OR BSD-3-Clause

//! Where a device is plugged in, so that it can be reset alone.
//!
//! On q35's root bus only few device models can be reset. Behind a separate root port each has the
//! port's bus reset; the conventional ones behind a bridge behind such a port.

use std::io::Write;
use std::process::{Command, Stdio};

use super::Board;
use crate::error::{Error, Result};
use crate::setup::Arch;

/// The first root port's slot on the root bus; q35's own devices are below and at 0x1f.
const FIRST_SLOT: usize = 0x8;
const MAX_DEVICES: usize = 0x1f - FIRST_SLOT;

/// QEMU arguments for a device, and the line with its location for the test machine.
#[derive(Debug, PartialEq, Eq)]
pub struct Placed {
    /// `-device` arguments.
    pub arguments: Vec<String>,
    /// Root port's slot, slot behind the bridge or `-`, and function, as `init` reads them.
    pub line: String,
}

/// Plugs every device in.
///
/// # Errors
/// [`Error::Usage`] for too many devices or one that is no PCI device, or if QEMU does not answer.
pub fn place(arch: Arch, board: Board, devices: &[String]) -> Result<Vec<Placed>> {
    if devices.len() > MAX_DEVICES {
        return Err(Error::Usage(format!(
            "{} devices; {MAX_DEVICES} can be placed",
            devices.len()
        )));
    }
    if devices.is_empty() {
        return Ok(Vec::new());
    }
    if board == Board::Pc {
        let numbered = devices.iter().enumerate();
        return Ok(numbered
            .map(|(number, device)| place_on_pc(number, device))
            .collect());
    }
    let models = Models::ask(arch)?;
    devices
        .iter()
        .enumerate()
        .map(|(number, device)| place_one(number, device, &models))
        .collect()
}

/// Each device behind a separate bridge, by which it can be reset.
fn place_on_pc(number: usize, device: &str) -> Placed {
    let slot = FIRST_SLOT + number;
    let bridge = format!("pci-bridge,id=tb{number},bus=pci.0,addr={slot:#x},chassis_nr={slot}");
    Placed {
        arguments: vec![bridge, format!("{device},bus=tb{number},addr=1")],
        line: format!("{slot:02x} - 01.0"),
    }
}

fn place_one(number: usize, device: &str, models: &Models) -> Result<Placed> {
    let (model, options) = device.split_once(',').unwrap_or((device, ""));
    if let Some(bus) = option(options, "bus") {
        return beside_another(device, bus, option(options, "addr").unwrap_or("0"));
    }
    let slot = FIRST_SLOT + number;
    // Behind a faster link the kernel gives up waiting after the reset of a bus: in 1 s, with ENOTTY. That is left to
    // the functions of one slot, which have no other reset.
    let speed = match option(options, "multifunction") {
        Some("on") => "",
        _ => ",x-speed=5",
    };
    let port =
        format!("pcie-root-port,id=tb{number},bus=pcie.0,addr={slot:#x},chassis={slot}{speed}");
    let slot = format!("{slot:02x}");
    if models.express.iter().any(|name| name == model) {
        let function = option(options, "addr").map_or("00.0".into(), devfn);
        let arguments = vec![port, format!("{device},bus=tb{number}")];
        return Ok(Placed {
            arguments,
            line: format!("{slot} - {function}"),
        });
    }
    if !models.conventional.iter().any(|name| name == model) {
        return Err(Error::Usage(format!(
            "QEMU has no PCI device model `{model}`"
        )));
    }
    let bridge = format!("pcie-pci-bridge,id=tbc{number},bus=tb{number}");
    let arguments = vec![port, bridge, format!("{device},bus=tbc{number},addr=1")];
    Ok(Placed {
        arguments,
        line: format!("{slot} 0 01.0"),
    })
}

/// A device with an explicit place: on the port of another, `bus=tbN`, or on its bridge,
/// `bus=tbcN`.
fn beside_another(device: &str, bus: &str, address: &str) -> Result<Placed> {
    let unknown = || Error::Usage(format!("`bus={bus}` of `{device}` is neither tbN nor tbcN"));
    let (bridged, number) = match (bus.strip_prefix("tbc"), bus.strip_prefix("tb")) {
        (Some(number), _) => ("0", number),
        (None, Some(number)) => ("-", number),
        (None, None) => return Err(unknown()),
    };
    let slot = FIRST_SLOT + number.parse::<usize>().map_err(|_| unknown())?;
    let line = format!("{slot:02x} {bridged} {}", devfn(address));
    Ok(Placed {
        arguments: vec![device.into()],
        line,
    })
}

/// The value of `name` in QEMU's comma-separated options.
fn option<'a>(options: &'a str, name: &str) -> Option<&'a str> {
    options
        .split(',')
        .find_map(|part| part.strip_prefix(name)?.strip_prefix('='))
}

/// QEMU's `addr=` as sysfs writes it: slot and function.
fn devfn(address: &str) -> String {
    let (slot, function) = address.split_once('.').unwrap_or((address, "0"));
    let digits = slot.trim_start_matches("0x");
    format!("{digits:0>2}.{function}")
}

/// The PCI device models of this QEMU.
#[derive(Debug, Default)]
struct Models {
    express: Vec<String>,
    conventional: Vec<String>,
}

impl Models {
    fn ask(arch: Arch) -> Result<Self> {
        let qemu = arch.qemu();
        let start = |source| Error::Start {
            program: qemu.into(),
            source,
        };
        let mut child = Command::new(qemu)
            .args([
                "-M",
                "none",
                "-nodefaults",
                "-display",
                "none",
                "-qmp",
                "stdio",
            ])
            .stdin(Stdio::piped())
            .stdout(Stdio::piped())
            .spawn()
            .map_err(start)?;
        let list = |interface: &str| {
            format!(r#"{{"execute":"qom-list-types","arguments":{{"implements":"{interface}"}}}}"#)
        };
        let questions = format!(
            "{{\"execute\":\"qmp_capabilities\"}}\n{}\n{}\n{{\"execute\":\"quit\"}}\n",
            list("pci-express-device"),
            list("conventional-pci-device"),
        );
        if let Some(mut input) = child.stdin.take() {
            input.write_all(questions.as_bytes()).map_err(start)?;
        }
        let output = child.wait_with_output().map_err(start)?;
        let lists = type_lists(&String::from_utf8_lossy(&output.stdout));
        let [express, conventional] = <[_; 2]>::try_from(lists)
            .map_err(|_| Error::Usage(format!("{qemu} does not list its device models")))?;
        Ok(Self {
            express,
            conventional,
        })
    }
}

/// The answers to `qom-list-types` in QMP's output.
fn type_lists(output: &str) -> Vec<Vec<String>> {
    let answers = output
        .lines()
        .filter_map(|line| serde_json::from_str(line).ok());
    let lists =
        answers.filter_map(|answer: serde_json::Value| answer.get("return")?.as_array().cloned());
    let name = |entry: &serde_json::Value| Some(entry.get("name")?.as_str()?.to_string());
    lists
        .map(|list| list.iter().filter_map(name).collect())
        .collect()
}

#[cfg(test)]
mod tests {
    use super::*;

    fn models() -> Models {
        Models {
            express: vec!["nvme".into()],
            conventional: vec!["edu".into(), "nvme".into()],
        }
    }

    #[test]
    fn express_devices_are_behind_a_port() {
        let placed = place_one(1, "nvme,drive=d,serial=x", &models()).unwrap();
        assert_eq!(placed.line, "09 - 00.0");
        assert_eq!(placed.arguments.len(), 2);
        assert_eq!(placed.arguments[1], "nvme,drive=d,serial=x,bus=tb1");
    }

    #[test]
    fn conventional_devices_are_behind_a_bridge() {
        let placed = place_one(0, "edu", &models()).unwrap();
        assert_eq!(placed.line, "08 0 01.0");
        assert_eq!(placed.arguments[2], "edu,bus=tbc0,addr=1");
    }

    #[test]
    fn a_given_bus_is_kept_and_found() {
        let placed = place_one(1, "nvme,drive=d,serial=x,bus=tb0,addr=0x0.1", &models()).unwrap();
        assert_eq!(placed.line, "08 - 00.1");
        assert_eq!(placed.arguments.len(), 1);
        assert!(place_one(1, "nvme,bus=pcie.0", &models()).is_err());
    }

    #[test]
    fn what_is_no_pci_device_is_refused() {
        assert!(place_one(0, "isa-serial", &models()).is_err());
        assert!(
            place(
                Arch::X86_64,
                Board::Express,
                &vec!["nvme".to_string(); MAX_DEVICES + 1]
            )
            .is_err()
        );
    }

    #[test]
    fn lists_are_read_from_qmp() {
        let output = concat!(
            r#"{"QMP": {"version": {}}}"#,
            "\n",
            r#"{"return": {}}"#,
            "\n",
            r#"{"return": [{"name": "nvme", "parent": "pci-device"}]}"#,
            "\n",
            r#"{"return": []}"#,
            "\n",
        );
        assert_eq!(type_lists(output), [vec!["nvme".to_string()], vec![]]);
    }
}
