// SPDX-License-Identifier: Apache-2.0 OR BSD-3-Clause

//! Binds devices to vfio-pci, and unbinds them.

pub(crate) mod error;

use std::fs::OpenOptions;
use std::io::Write;
use std::process::Command;
use std::thread;
use std::time::{Duration, Instant};

use address::Bdf;
use iommufd_backend::{CdevKind, CdevNode, GroupNode, is_vfio_driver};

use self::error::BindError;
use crate::facts::backend::{Node, node};
use crate::facts::device::{FunctionKind, Identity, cdev_kind};
use crate::facts::in_use;
use crate::sys_root::SysRoot;

/// The driver.
const VFIO_PCI: &str = "vfio-pci";
/// How long a node of `/dev` may take to come: devtmpfs makes it at once, others do not.
const NODE_LIMIT: Duration = Duration::from_secs(5);
const NODE_POLL: Duration = Duration::from_millis(10);

/// A device that a VFIO driver has.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Bound {
    /// The driver.
    pub driver: String,
    /// The driver that had it before; `None` if none had.
    pub before: Option<String>,
    /// Whether it was bound already, so that nothing was done.
    pub already: bool,
    /// Its node.
    pub node: String,
    /// Whether an IOMMU isolates it.
    pub kind: CdevKind,
}

/// A device that no VFIO driver has.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Unbound {
    /// Its own driver; `None` if none claimed it.
    pub driver: Option<String>,
    /// The VFIO driver that had it; `None` if none had, so that nothing was done.
    pub before: Option<String>,
}

/// Finds out whether [`bind`] would be refused, without touching the device. With `force`, a
/// device is taken that the host uses.
///
/// # Errors
/// [`BindError`]
pub fn prepare(root: &SysRoot, bdf: Bdf, force: bool) -> Result<(), BindError> {
    let driver = root.pci().driver(bdf)?;
    match FunctionKind::of(root, bdf) {
        FunctionKind::Bridge => {
            let class = Identity::of(root, bdf).class;
            return Err(BindError::BindBridge { bdf, class });
        }
        FunctionKind::Silent => return Err(BindError::BindSilent { bdf }),
        FunctionKind::Device => {}
    }
    if driver.as_deref().is_some_and(is_vfio_driver) {
        return Ok(());
    }
    let uses = in_use::by_host(root, bdf);
    if !uses.is_empty() && !force {
        return Err(BindError::BindInUse { bdf, uses });
    }
    load_driver(root)?;
    if cdev_kind(root, bdf) == CdevKind::Iommu {
        return Ok(());
    }
    match root.pci().unsafe_noiommu_mode() {
        Some(true) => Ok(()),
        Some(false) => Err(BindError::BindUnsafeModeOff { bdf }),
        None => Err(BindError::BindNoNoiommu { bdf }),
    }
}

fn load_driver(root: &SysRoot) -> Result<(), BindError> {
    let is_there = || root.exists("sys/bus/pci/drivers/vfio-pci");
    if is_there() {
        return Ok(());
    }
    let failed = |reason: String| Err(BindError::BindNoVfioPci { reason });
    match Command::new("modprobe").arg(VFIO_PCI).output() {
        Ok(_) if is_there() => Ok(()),
        Ok(output) => {
            let said = String::from_utf8_lossy(&output.stderr);
            failed(match said.trim() {
                "" => output.status.to_string(),
                said => said.to_owned(),
            })
        }
        Err(error) => failed(format!("cannot start modprobe: {error}")),
    }
}

/// What to go back to.
#[derive(Debug)]
struct Before {
    driver: Option<String>,
    driver_override: String,
}

/// Binds `bdf` to vfio-pci. One that is already bound to a VFIO driver is not changed.
///
/// # Errors
/// [`BindError`]; the device is with its driver of before then.
pub fn bind(root: &SysRoot, bdf: Bdf, force: bool) -> Result<Bound, BindError> {
    prepare(root, bdf, force)?;
    let before = root.pci().driver(bdf)?;
    if let Some(driver) = before.clone().filter(|driver| is_vfio_driver(driver)) {
        return match node(root, bdf) {
            Some(node) => Ok(Bound {
                driver,
                before,
                already: true,
                node: node.path(),
                kind: node.kind(),
            }),
            None => Err(BindError::BindNoCdev {
                bdf,
                restored: Some(driver),
            }),
        };
    }
    let before = Before {
        driver: before,
        driver_override: driver_override(root, bdf),
    };
    take(root, bdf, &before).map_err(|error| {
        let restored = restore(root, bdf, &before);
        match error {
            BindError::BindNotTaken { bdf, .. } => BindError::BindNotTaken { bdf, restored },
            BindError::BindNoCdev { bdf, .. } => BindError::BindNoCdev { bdf, restored },
            error => error,
        }
    })
}

fn take(root: &SysRoot, bdf: Bdf, before: &Before) -> Result<Bound, BindError> {
    write(root, &of_device(bdf, "driver_override"), VFIO_PCI)?;
    if before.driver.is_some() {
        write(root, &of_device(bdf, "driver/unbind"), &bdf.to_string())?;
    }
    // Succeeds whether a driver takes the device or not.
    write(root, "sys/bus/pci/drivers_probe", &bdf.to_string())?;
    if root.pci().driver(bdf)?.as_deref() != Some(VFIO_PCI) {
        return Err(BindError::BindNotTaken {
            bdf,
            restored: None,
        });
    }
    let node = await_node(root, bdf)?.ok_or(BindError::BindNoCdev {
        bdf,
        restored: None,
    })?;
    Ok(Bound {
        driver: VFIO_PCI.to_owned(),
        before: before.driver.clone(),
        already: false,
        node: node.path(),
        kind: node.kind(),
    })
}

/// The node of a function that was just bound, once it is there. One that is not listed in sysfs never comes.
fn await_node(root: &SysRoot, bdf: Bdf) -> Result<Option<Node>, BindError> {
    let end = Instant::now() + NODE_LIMIT;
    loop {
        let found = node(root, bdf);
        let lists_cdev = CdevNode::of(root.pci(), bdf)?.is_some();
        let lists_group = GroupNode::of(root.pci(), bdf)?.is_some();
        let is_best = match &found {
            Some(Node::Cdev(_)) => true,
            Some(Node::Group(_)) => !lists_cdev,
            None => !lists_cdev && !lists_group,
        };
        if is_best || Instant::now() >= end {
            return Ok(found);
        }
        thread::sleep(NODE_POLL);
    }
}

/// Takes a half-done binding back and returns the driver that has the device then.
fn restore(root: &SysRoot, bdf: Bdf, before: &Before) -> Option<String> {
    let text = match before.driver_override.as_str() {
        "" => "\n",
        text => text,
    };
    let mut steps = Vec::new();
    if driver_override(root, bdf) != before.driver_override {
        steps.push((of_device(bdf, "driver_override"), text.to_owned()));
    }
    let now = root.pci().driver(bdf).ok().flatten();
    if now != before.driver {
        if now.is_some() {
            steps.push((of_device(bdf, "driver/unbind"), bdf.to_string()));
        }
        steps.push(("sys/bus/pci/drivers_probe".to_owned(), bdf.to_string()));
    }
    for (name, text) in steps {
        if let Err(error) = write(root, &name, &text) {
            log::warn!("{bdf}: {error}");
        }
    }
    root.pci().driver(bdf).ok().flatten()
}

/// Makes sure that no process has the VFIO device of `bdf` open.
///
/// # Errors
/// [`BindError::UnbindOpen`]
pub fn ensure_closed(root: &SysRoot, bdf: Bdf) -> Result<(), BindError> {
    match in_use::by_user(root, bdf) {
        Some(by) => Err(BindError::UnbindOpen { bdf, by }),
        None => Ok(()),
    }
}

/// Makes sure that no virtual function of `bdf` is on: they would be reset together with it.
///
/// # Errors
/// [`BindError::UnbindOpen`]
pub fn ensure_no_virtual_functions(root: &SysRoot, bdf: Bdf) -> Result<(), BindError> {
    match in_use::virtual_functions(root, bdf) {
        Some(by) => Err(BindError::UnbindOpen { bdf, by }),
        None => Ok(()),
    }
}

/// Returns `bdf` to the driver that claims it. One without a VFIO driver is not changed.
///
/// # Errors
/// [`BindError`]
pub fn unbind(root: &SysRoot, bdf: Bdf) -> Result<Unbound, BindError> {
    let driver = root.pci().driver(bdf)?;
    let is_ours = driver.as_deref().is_some_and(is_vfio_driver);
    if is_ours {
        ensure_closed(root, bdf)?;
    }
    let overridden = is_vfio_driver(&driver_override(root, bdf));
    if !is_ours && !overridden {
        return Ok(Unbound {
            driver,
            before: None,
        });
    }
    if overridden {
        write(root, &of_device(bdf, "driver_override"), "\n")?;
    }
    if is_ours {
        write(root, &of_device(bdf, "driver/unbind"), &bdf.to_string())?;
    }
    if is_ours || driver.is_none() {
        write(root, "sys/bus/pci/drivers_probe", &bdf.to_string())?;
    }
    Ok(Unbound {
        driver: root.pci().driver(bdf)?,
        before: driver.filter(|_| is_ours),
    })
}

/// The driver that alone may claim the device; empty if any may, or that is not known.
fn driver_override(root: &SysRoot, bdf: Bdf) -> String {
    root.pci().driver_override(bdf).unwrap_or_default()
}

fn of_device(bdf: Bdf, file: &str) -> String {
    format!("sys/bus/pci/devices/{bdf}/{file}")
}

fn write(root: &SysRoot, name: &str, text: &str) -> Result<(), BindError> {
    let path = root.path(name);
    OpenOptions::new()
        .write(true)
        .open(&path)
        .and_then(|mut file| file.write_all(text.as_bytes()))
        .map_err(|source| BindError::BindWrite {
            what: text.trim().to_owned(),
            path,
            source,
        })
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::facts::uses::Use;
    use crate::sys_root::tests::Fake;

    const DISK: &str = "sys/devices/pci0000:00/0000:00:08.0/0000:01:00.0";
    const SWITCH: &str = "sys/module/vfio/parameters/enable_unsafe_noiommu_mode";

    /// A machine whose disk its own driver has, and on which writing to sysfs does nothing.
    fn machine() -> (Fake, Bdf) {
        let fake = Fake::new();
        let disk = fake.disk();
        fake.directory("sys/bus/pci/drivers/vfio-pci");
        fake.write("sys/bus/pci/drivers/nvme/unbind", "");
        fake.write("sys/bus/pci/drivers_probe", "");
        fake.write(&format!("{DISK}/driver_override"), "(null)\n");
        fake.link(&format!("{DISK}/driver"), "sys/bus/pci/drivers/nvme");
        fake.write(SWITCH, "Y\n");
        (fake, disk)
    }

    #[test]
    fn refusals_come_before_anything_is_touched() {
        let (fake, disk) = machine();
        let refusal = |force| prepare(&fake.root, disk, force).unwrap_err();
        fake.write(SWITCH, "N\n");
        let off = refusal(false);
        assert!(matches!(off, BindError::BindUnsafeModeOff { .. }));
        assert!(off.hint().unwrap().contains("echo 1 >"));
        std::fs::remove_file(fake.dir.path().join(SWITCH)).unwrap();
        assert!(matches!(refusal(false), BindError::BindNoNoiommu { .. }));
        fake.write(
            "proc/self/mountinfo",
            "1 1 259:0 / /x rw - ext2 /dev/x rw\n",
        );
        fake.write(&format!("{DISK}/nvme/nvme0/nvme0n1/dev"), "259:0\n");
        fake.link(
            "sys/class/block/nvme0n1",
            &format!("{DISK}/nvme/nvme0/nvme0n1"),
        );
        let used = refusal(false);
        assert!(matches!(&used, BindError::BindInUse { uses, .. } if uses.len() == 1));
        assert!(used.hint().unwrap().starts_with("umount /x; or"));
        assert!(matches!(refusal(true), BindError::BindNoNoiommu { .. }));
        fake.write(&format!("{DISK}/class"), "0x060400\n");
        assert!(matches!(refusal(true), BindError::BindBridge { .. }));
        assert!(matches!(
            prepare(&fake.root, "09:00.0".parse().unwrap(), true),
            Err(BindError::BindFacts(_))
        ));
        assert_eq!(fake.root.word("sys/bus/pci/drivers_probe"), "");
    }

    #[test]
    fn a_device_with_virtual_functions_is_neither_bound_nor_run() {
        let (fake, disk) = machine();
        prepare(&fake.root, disk, false).unwrap();
        ensure_no_virtual_functions(&fake.root, disk).unwrap();
        fake.write(&format!("{DISK}/sriov_numvfs"), "2\n");
        let errors = [
            prepare(&fake.root, disk, false).unwrap_err(),
            ensure_no_virtual_functions(&fake.root, disk).unwrap_err(),
        ];
        for error in errors {
            assert!(
                error
                    .to_string()
                    .contains("2 of its virtual functions are enabled")
            );
            let hint = error.hint().unwrap();
            let command = "echo 0 > /sys/bus/pci/devices/0000:01:00.0/sriov_numvfs";
            assert!(hint.starts_with(command), "{hint}");
        }
    }

    #[test]
    fn a_device_that_is_not_taken_is_as_it_was() {
        let (fake, disk) = machine();
        fake.write(&format!("{DISK}/driver_override"), "nvme\n");
        let error = bind(&fake.root, disk, false).unwrap_err();
        assert!(
            matches!(&error, BindError::BindNotTaken { restored, .. } if restored.as_deref() == Some("nvme"))
        );
        assert!(
            fake.root
                .word(format!("{DISK}/driver_override"))
                .starts_with("nvme")
        );
    }

    #[test]
    fn a_bound_device_stays_bound() {
        let (fake, disk) = machine();
        std::fs::remove_file(fake.dir.path().join(DISK).join("driver")).unwrap();
        fake.link(&format!("{DISK}/driver"), "sys/bus/pci/drivers/vfio-pci");
        assert!(matches!(
            bind(&fake.root, disk, false),
            Err(BindError::BindNoCdev { .. })
        ));
        fake.directory(&format!("{DISK}/vfio-dev/noiommu-vfio3"));
        fake.write("dev/vfio/devices/noiommu-vfio3", "");
        let bound = bind(&fake.root, disk, false).unwrap();
        assert!(bound.already);
        assert_eq!(bound.node, "/dev/vfio/devices/noiommu-vfio3");
        assert_eq!(bound.kind, CdevKind::Noiommu);
        fake.directory("proc/77/fd");
        let fd = fake.dir.path().join("proc/77/fd/3");
        std::os::unix::fs::symlink(&bound.node, fd).unwrap();
        assert!(matches!(
            unbind(&fake.root, disk),
            Err(BindError::UnbindOpen {
                by: Use::Open { process: 77, .. },
                ..
            })
        ));
    }

    #[test]
    fn a_kernel_with_groups_alone_is_enough() {
        let (fake, disk) = machine();
        std::fs::remove_file(fake.dir.path().join(DISK).join("driver")).unwrap();
        fake.link(&format!("{DISK}/driver"), "sys/bus/pci/drivers/vfio-pci");
        fake.write("sys/kernel/iommu_groups/2/name", "vfio-noiommu\n");
        fake.link(&format!("{DISK}/iommu_group"), "sys/kernel/iommu_groups/2");
        fake.directory(&format!("{DISK}/vfio-dev/vfio0"));
        let refused = bind(&fake.root, disk, false);
        assert!(matches!(refused, Err(BindError::BindNoCdev { .. })));
        fake.write("dev/vfio/noiommu-2", "");
        let found = await_node(&fake.root, disk).unwrap().unwrap();
        assert_eq!(found.path(), "/dev/vfio/noiommu-2");
        let bound = bind(&fake.root, disk, false).unwrap();
        assert_eq!(bound.node, "/dev/vfio/noiommu-2");
        assert_eq!(bound.kind, CdevKind::Noiommu);
    }

    #[test]
    fn what_is_not_listed_is_not_waited_for() {
        let (fake, disk) = machine();
        assert_eq!(await_node(&fake.root, disk).unwrap(), None);
    }

    #[test]
    fn a_device_with_its_own_driver_is_left_alone() {
        let (fake, disk) = machine();
        let unbound = unbind(&fake.root, disk).unwrap();
        assert_eq!(unbound.driver.as_deref(), Some("nvme"));
        assert_eq!(unbound.before, None);
        assert_eq!(fake.root.word("sys/bus/pci/drivers_probe"), "");
        fake.write(&format!("{DISK}/driver_override"), "vfio-pci\n");
        unbind(&fake.root, disk).unwrap();
        assert!(
            !fake
                .root
                .word(format!("{DISK}/driver_override"))
                .starts_with("vfio")
        );
    }
}
