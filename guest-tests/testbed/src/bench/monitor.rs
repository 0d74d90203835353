// SPDX-License-Identifier: Apache-2.0 OR BSD-3-Clause

//! The monitors that are measured side by side, and how each is started: the same kernel, initramfs, memory and CPU.

use std::path::PathBuf;
use std::str::FromStr;

use super::script::FOLDER;

/// A monitor that the user supplies: `NAME=PATH`.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Peer {
    /// What it is.
    pub monitor: Monitor,
    /// The program, which must run on the test machine: linked statically, or against this machine's libraries.
    pub path: PathBuf,
}

impl FromStr for Peer {
    type Err = String;

    fn from_str(text: &str) -> Result<Self, String> {
        let (name, path) = text.split_once('=').ok_or("expected NAME=PATH")?;
        let monitor = Monitor::PEERS
            .into_iter()
            .find(|monitor| monitor.name() == name)
            .ok_or_else(|| {
                let names = Monitor::PEERS.map(Monitor::name).join(", ");
                format!("no command line is known for `{name}`; known are {names}")
            })?;
        let path = PathBuf::from(path);
        match path.is_file() {
            true => Ok(Self { monitor, path }),
            false => Err(format!("there is no file {}", path.display())),
        }
    }
}

/// What starts a guest.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Monitor {
    /// Pinvisor without a device.
    Pinvisor,
    /// Pinvisor with one NVMe controller.
    PinvisorNvme,
    /// The same with 1 GiB of memory.
    PinvisorGib,
    /// QEMU's machine for microVMs.
    Microvm,
    /// Firecracker.
    Firecracker,
    /// Cloud Hypervisor.
    CloudHypervisor,
}

impl Monitor {
    /// Those that the user may supply.
    pub const PEERS: [Self; 2] = [Self::Firecracker, Self::CloudHypervisor];

    /// Its name, also that of a peer's file on the test machine.
    pub fn name(self) -> &'static str {
        match self {
            Self::Pinvisor => "pinvisor",
            Self::PinvisorNvme => "pinvisor-nvme",
            Self::PinvisorGib => "pinvisor-1g",
            Self::Microvm => "qemu-microvm",
            Self::Firecracker => "firecracker",
            Self::CloudHypervisor => "cloud-hypervisor",
        }
    }

    /// Script lines that make what its command needs.
    pub fn prepare(self) -> String {
        match self {
            Self::Firecracker => {
                format!("cat > {FOLDER}/firecracker.json <<'END'\n{FIRECRACKER}\nEND\n")
            }
            Self::PinvisorNvme => "testbed-bind $TESTBED_BDF_0 || exit 1\n".to_owned(),
            _ => String::new(),
        }
    }

    /// Its command line for the shell: 256 MiB, one vCPU, the serial port on standard output.
    pub fn command(self) -> String {
        let quiet = "console=ttyS0 quiet panic=-1";
        let pinvisor = |memory| {
            format!(
                "{FOLDER}/pinvisor run --kernel {FOLDER}/kernel --initramfs {FOLDER}/initramfs --memory {memory} \
                 --cmdline '{quiet}'"
            )
        };
        let device = "--noiommu --device $TESTBED_BDF_0";
        match self {
            Self::Pinvisor => pinvisor("256M"),
            Self::PinvisorNvme => format!("{} {device}", pinvisor("256M")),
            Self::PinvisorGib => format!("{} {device}", pinvisor("1G")),
            Self::Microvm => format!(
                "qemu-system-x86_64 -M microvm,x-option-roms=off,pit=off,pic=off,isa-serial=on,rtc=on,acpi=off \
                 -enable-kvm -cpu host -m 256M -smp 1 -nodefaults -no-user-config -no-reboot -nographic \
                 -serial stdio -kernel {FOLDER}/kernel -initrd {FOLDER}/initramfs \
                 -append '{quiet} reboot=t end=reboot'"
            ),
            Self::Firecracker => {
                format!(
                    "{FOLDER}/firecracker --no-api --level Off --config-file {FOLDER}/firecracker.json"
                )
            }
            Self::CloudHypervisor => format!(
                "{FOLDER}/cloud-hypervisor --kernel {FOLDER}/kernel --initramfs {FOLDER}/initramfs \
                 --cmdline '{quiet} reboot=t' --memory size=256M --cpus boot=1 --serial tty --console off"
            ),
        }
    }
}

/// Firecracker's configuration, the same guest as the others'.
const FIRECRACKER: &str = r#"{
  "boot-source": {
    "kernel_image_path": "/tmp/bench/kernel",
    "initrd_path": "/tmp/bench/initramfs",
    "boot_args": "console=ttyS0 quiet panic=-1 reboot=k end=reboot"
  },
  "drives": [],
  "machine-config": { "vcpu_count": 1, "mem_size_mib": 256 }
}"#;

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_missing_or_unknown_peer_is_one_clear_line() {
        let error = |text: &str| text.parse::<Peer>().unwrap_err();
        assert_eq!(error("firecracker"), "expected NAME=PATH");
        assert!(error("crosvm=/bin/sh").contains("known are firecracker, cloud-hypervisor"));
        assert_eq!(error("firecracker=/none"), "there is no file /none");
        let peer: Peer = "firecracker=/bin/sh".parse().unwrap();
        assert_eq!(peer.monitor, Monitor::Firecracker);
    }
}
