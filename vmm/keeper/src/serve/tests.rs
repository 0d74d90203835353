// SPDX-License-Identifier: Apache-2.0 OR BSD-3-Clause

//! Keepers in a thread, whose monitor is a process that does nothing, and whose devices are files.

use std::os::unix::fs::symlink;
use std::process::{Child, Command, Stdio};
use std::thread::{self, JoinHandle};
use std::{fs, thread::sleep};

use iommufd_backend::Leftover;
use rustix::net::{AddressFamily, SocketFlags, SocketType, socketpair};
use rustix::process::Pid;

use super::*;
use crate::message::Kept;
use crate::{Found, find, release};

const DISK: &str = "0000:01:00.0";

/// A monitor, its keeper, and the machine that they are on.
struct Rig {
    root: tempfile::TempDir,
    channel: Option<Channel>,
    monitor: Child,
    keeper: Option<JoinHandle<Result<(), KeeperError>>>,
}

impl Rig {
    fn new() -> Self {
        let root = tempfile::tempdir().unwrap();
        let device = root.path().join("bus/pci/devices").join(DISK);
        fs::create_dir_all(&device).unwrap();
        let mut config = [0; 64];
        config[4] = 6;
        fs::write(device.join("config"), config).unwrap();
        fs::write(device.join("reset_method"), "flr\n").unwrap();
        fs::write(device.join("driver_override"), "vfio-pci\n").unwrap();
        fs::write(device.join("reset"), "").unwrap();
        let (ours, theirs) = socketpair(
            AddressFamily::UNIX,
            SocketType::SEQPACKET,
            SocketFlags::CLOEXEC,
            None,
        )
        .unwrap();
        let monitor = Command::new("cat").stdin(Stdio::piped()).spawn().unwrap();
        let number = Pid::from_child(&monitor);
        let pidfd = pidfd_open(number, PidfdFlags::empty()).unwrap();
        let place = Place {
            sysfs: PciSysfs::at(root.path()),
            directory: root.path().join("keepers"),
        };
        let keeper = thread::spawn(move || serve(Channel(theirs), &pidfd, &place));
        Self {
            root,
            channel: Some(Channel(ours)),
            monitor,
            keeper: Some(keeper),
        }
    }

    fn device(&self, file: &str) -> PathBuf {
        let devices = self.root.path().join("bus/pci/devices");
        devices.join(DISK).join(file)
    }

    fn tell(&self, request: &Request) {
        let file = tempfile::tempfile().unwrap();
        let channel = self.channel.as_ref().unwrap();
        channel.send(request, &[file.as_fd()]).unwrap();
    }

    fn hold(&self) {
        self.tell(&Request::Hold {
            devices: vec![kept("")],
        });
        let channel = self.channel.as_ref().unwrap();
        let (answer, _) = channel.receive::<Answer>().unwrap().unwrap();
        assert_eq!(answer, Answer::Ready { found: false });
        self.tell(&Request::Memory { bytes: 64 << 20 });
    }

    fn end_of_monitor(&mut self) {
        self.channel = None;
        self.monitor.kill().unwrap();
        self.monitor.wait().unwrap();
    }

    /// The keeper, once it can be found.
    fn found(&self) -> Found {
        loop {
            if let Some(found) = find(&self.root.path().join("keepers")).pop() {
                return found;
            }
            let is_running = !self.keeper.as_ref().unwrap().is_finished();
            assert!(is_running, "it ended without being found");
            sleep(Duration::from_millis(5));
        }
    }

    fn join(mut self) {
        self.keeper.take().unwrap().join().unwrap().unwrap();
    }
}

impl Drop for Rig {
    fn drop(&mut self) {
        let _ = self.monitor.kill();
        let _ = self.monitor.wait();
    }
}

fn kept(why: &str) -> Kept {
    let device = Leftover {
        bdf: DISK.parse().unwrap(),
        parent: None,
        seen_in_slot: false,
        accepted: false,
    };
    Kept::new(&device, why.into())
}

#[test]
fn an_ordinary_end_leaves_nothing() {
    let rig = Rig::new();
    rig.hold();
    rig.tell(&Request::Released);
    let root = rig.root.path().to_owned();
    assert_eq!(fs::read(rig.device("reset")).unwrap(), b"");
    rig.join();
    assert!(!root.join("keepers").exists());
}

#[test]
fn the_device_of_a_killed_monitor_is_stopped_and_reset() {
    let mut rig = Rig::new();
    rig.hold();
    rig.end_of_monitor();
    let device = rig.device("");
    let keeper = rig.keeper.take().unwrap();
    keeper.join().unwrap().unwrap();
    assert_eq!(fs::read(device.join("reset")).unwrap(), b"1");
    assert_eq!(fs::read(device.join("config")).unwrap()[4], 2);
}

#[test]
fn nothing_is_reset_for_a_monitor_that_had_no_memory() {
    let mut rig = Rig::new();
    rig.tell(&Request::Hold {
        devices: vec![kept("")],
    });
    rig.end_of_monitor();
    let device = rig.device("");
    rig.keeper.take().unwrap().join().unwrap().unwrap();
    assert_eq!(fs::read(device.join("reset")).unwrap(), b"");
}

#[test]
fn what_cannot_be_reset_is_kept_until_it_has_been_reset() {
    let mut rig = Rig::new();
    rig.hold();
    symlink("drivers/nvme", rig.device("driver")).unwrap();
    rig.end_of_monitor();
    let found = rig.found();
    assert_eq!(found.pid, std::process::id());
    assert_eq!(found.status.bytes, 64 << 20);
    assert!(found.status.devices[0].why.contains("it is bound to nvme"));
    let other = "0000:02:00.0".parse().unwrap();
    assert_eq!(release(&found, other).unwrap().devices.len(), 1);
    let disk = DISK.parse().unwrap();
    assert_eq!(release(&found, disk).unwrap().devices, []);
    rig.join();
}

#[test]
fn a_monitor_has_it_keep_what_is_not_quiet() {
    let rig = Rig::new();
    rig.hold();
    rig.tell(&Request::Status);
    rig.tell(&Request::Keep {
        devices: vec![kept("its bus mastering cannot be disabled")],
    });
    let channel = rig.channel.as_ref().unwrap();
    let answers = [(); 2].map(|()| channel.receive::<Answer>().unwrap().unwrap().0);
    assert!(matches!(answers[0], Answer::Refused { .. }));
    assert_eq!(answers[1], Answer::Ready { found: true });
    let found = rig.found();
    let text = found.status.to_string();
    let wanted = "64 MiB for 0000:01:00.0 (its bus mastering cannot be disabled)";
    assert_eq!(text, wanted);
    release(&found, DISK.parse().unwrap()).unwrap();
    rig.join();
}

#[test]
fn a_directory_that_others_can_write_to_is_not_trusted() {
    use std::os::unix::fs::PermissionsExt;
    let root = tempfile::tempdir().unwrap();
    let directory = root.path().join("keepers");
    let published = Published::new(&directory).unwrap();
    fs::set_permissions(&directory, fs::Permissions::from_mode(0o777)).unwrap();
    assert_eq!(find(&directory), []);
    assert!(Published::new(&directory).is_err());
    fs::set_permissions(&directory, fs::Permissions::from_mode(0o755)).unwrap();
    fs::write(directory.join("keeper-1"), "no socket").unwrap();
    drop(published);
    assert_eq!(find(&directory), []);
}
