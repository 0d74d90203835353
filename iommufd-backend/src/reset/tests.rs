// SPDX-License-Identifier: Apache-2.0 OR BSD-3-Clause

use std::fs;
use std::os::unix::fs::symlink;

use super::*;
use crate::evidence::tests::fake;

fn affected(owned: &[bool]) -> Vec<Affected> {
    let function = |(number, owned): (u8, &bool)| Affected {
        bdf: Bdf::new(0, 1, 0, number).unwrap(),
        owned: *owned,
    };
    (0..).zip(owned).map(function).collect()
}

fn choose(own: Option<&str>, affected: &[Affected]) -> ResetMethod {
    let affected = affected.to_vec();
    ResetMethod::choose(own, || Ok::<_, Error>(affected)).unwrap()
}

#[test]
fn a_pm_reset_is_the_last_choice() {
    let own = |method: &str| ResetMethod::Function(method.into());
    let bus = |list: &[Affected], instead_of: Option<&str>| ResetMethod::Bus {
        functions: list.iter().map(|one| one.bdf).collect(),
        instead_of: instead_of.map(str::to_owned),
    };
    let (alone, both, one) = (
        affected(&[true]),
        affected(&[true, true]),
        affected(&[true, false]),
    );
    assert_eq!(choose(Some("flr"), &[]), own("flr"));
    assert_eq!(choose(Some("bus"), &alone), own("bus"));
    assert_eq!(choose(Some(PM), &alone), bus(&alone, Some(PM)));
    assert_eq!(choose(Some(PM), &both), bus(&both, Some(PM)));
    assert_eq!(choose(Some(PM), &one), own(PM));
    assert_eq!(choose(Some(PM), &[]), own(PM));
    assert_eq!(choose(None, &both), bus(&both, None));
    let others = vec![one[1].bdf];
    assert_eq!(choose(None, &one), ResetMethod::None { others });
    assert_eq!(choose(None, &[]), ResetMethod::None { others: vec![] });
}

#[test]
fn the_bus_is_asked_for_only_where_it_matters() {
    let refuse = || Err::<Vec<Affected>, _>(());
    assert!(ResetMethod::choose(Some("flr"), refuse).is_ok());
    assert!(ResetMethod::choose(Some(PM), refuse).is_err());
    assert!(ResetMethod::choose(None, refuse).is_err());
}

#[test]
fn a_guest_gets_a_reset_that_hits_its_function_alone_and_is_trusted() {
    let both = affected(&[true, true]);
    for (method, is_offered) in [
        (choose(Some("flr"), &[]), true),
        (choose(Some("bus"), &[]), true),
        (choose(Some("function"), &[]), true),
        (choose(Some(PM), &[]), false),
        (choose(Some(PM), &both), false),
        (choose(None, &both), false),
        (choose(None, &[]), false),
    ] {
        assert_eq!(method.is_function_reset(), is_offered, "{method:?}");
        let function = fake(0);
        let result = method.reset_for_guest(&function);
        assert_eq!(result.is_ok(), is_offered, "{method:?}");
        assert_eq!(function.was_touched(), is_offered, "{method:?}");
    }
}

#[test]
fn only_a_reset_of_the_bus_has_a_fallback() {
    let both = affected(&[true, true]);
    let own = ResetMethod::Function(PM.to_owned());
    assert_eq!(choose(Some(PM), &both).fallback(), Some(own.clone()));
    assert_eq!(choose(Some(PM), &both).own(), Some(PM));
    assert_eq!((own.fallback(), own.own()), (None, Some(PM)));
    let shared = choose(None, &both);
    assert_eq!((shared.fallback(), shared.own()), (None, None));
}

/// Functions behind a port, and what the first one's list of methods has.
fn tree(functions: usize, methods: Option<&str>) -> (tempfile::TempDir, PciSysfs) {
    let root = tempfile::tempdir().unwrap();
    let list = root.path().join("bus/pci/devices");
    fs::create_dir_all(&list).unwrap();
    for number in 0..functions {
        let name = format!("0000:01:00.{number}");
        let real = root.path().join("devices/pci0000:00/0000:00:08.0");
        fs::create_dir_all(real.join(&name)).unwrap();
        symlink(real.join(&name), list.join(&name)).unwrap();
    }
    if let Some(methods) = methods {
        fs::write(list.join("0000:01:00.0/reset_method"), methods).unwrap();
    }
    let sysfs = PciSysfs::at(root.path());
    (root, sysfs)
}

#[test]
fn what_a_run_will_do_shows_in_sysfs() {
    let expected = |functions, methods, owned| {
        let (_root, sysfs) = tree(functions, methods);
        let bdf = Bdf::new(0, 1, 0, 0).unwrap();
        sysfs.expected_reset(bdf, |_| owned).unwrap().to_string()
    };
    for (functions, methods, owned, method) in [
        (1, Some("flr bus\n"), false, "flr"),
        (2, Some("flr bus\n"), false, "flr"),
        (1, Some("pm bus\n"), false, "bus"),
        // Its bus has no reset.
        (1, Some("pm\n"), false, "pm"),
        (1, None, false, "none"),
        // The user took all methods out, which does not keep the bus from being reset.
        (1, Some("\n"), false, "bus"),
        (1, Some("bus\n"), false, "bus"),
        (2, Some("pm bus\n"), false, "pm"),
        (2, Some("pm bus\n"), true, "bus"),
        (2, None, true, "bus"),
        (2, None, false, "none"),
        // The kernel lists what it found before it found the other function.
        (2, Some("bus\n"), false, "none"),
    ] {
        let found = expected(functions, methods, owned);
        assert_eq!(found, method, "{functions} {methods:?} {owned}");
    }
    let (_root, sysfs) = tree(2, Some("bus\n"));
    let found = sysfs.expected_reset(Bdf::new(0, 1, 0, 0).unwrap(), |_| true);
    let functions = vec![Bdf::new(0, 1, 0, 0).unwrap(), Bdf::new(0, 1, 0, 1).unwrap()];
    let bus = ResetMethod::Bus {
        functions,
        instead_of: None,
    };
    assert_eq!(found.unwrap(), bus);
}

#[test]
fn the_kernels_order_counts_but_for_pm() {
    let words = |text: &str| -> Vec<String> { text.split(' ').map(str::to_owned).collect() };
    assert_eq!(strongest(&words("flr bus")), Some("flr"));
    assert_eq!(strongest(&words("pm bus")), Some("bus"));
    assert_eq!(strongest(&words("bus flr")), Some("bus"));
    assert_eq!(strongest(&words("pm")), Some("pm"));
    assert_eq!(strongest(&[]), None);
}
