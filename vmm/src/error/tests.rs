use std::collections::BTreeSet;

use devices::vfio_pci::HostError;

use super::*;

#[test]
fn names_are_unique() {
    let names: BTreeSet<_> = Error::ids().collect();
    assert_eq!(names.len(), Error::ids().count());
    assert!(names.contains("not-bound") && names.contains("bind-in-use"));
    let bdf = "01:00.0".parse().unwrap();
    assert_eq!(Error::DeviceTwice { bdf }.id(), "device-twice");
    assert_eq!(
        Error::Bind(Backend::NoDevice { bdf }.into()).id(),
        "no-device"
    );
}

#[test]
fn a_cause_is_told_once() {
    let error = Error::Function(SetupError::Config {
        device: "01:00.0".into(),
        offset: 0x10,
        source: HostError(Box::new(Backend::Read {
            path: "/dev/x".into(),
            source: io::Error::from_raw_os_error(libc::EIO),
        })),
    });
    let text = error.chain();
    assert_eq!(text.matches("Input/output error").count(), 1, "{text}");
}
