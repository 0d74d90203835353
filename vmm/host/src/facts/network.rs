// SPDX-License-Identifier: Apache-2.0 OR BSD-3-Clause

//! Network interfaces of a PCI function, and whether the host reaches networks through one.

use std::collections::{BTreeMap, BTreeSet};
use std::net::{Ipv4Addr, Ipv6Addr};
use std::path::Path;

use crate::facts::uses::Use;
use crate::sys_root::SysRoot;

/// `IFF_UP` in an interface's flags (include/uapi/linux/if.h).
const INTERFACE_UP: u32 = 1;

/// `RTF_UP` and `RTF_REJECT` (include/uapi/linux/route.h).
const UP: u32 = 1;
const REJECT: u32 = 0x200;

/// Uses of the network interfaces of the function whose directory is `function`.
pub(crate) fn uses(root: &SysRoot, function: &Path) -> Vec<Use> {
    let interfaces = interfaces(root, function);
    let text = |name| root.text(name).unwrap_or_default();
    let (v4, v6) = (text("proc/net/route"), text("proc/net/ipv6_route"));
    let defaults = v4.lines().filter_map(default_v4);
    let defaults: BTreeSet<&str> = defaults
        .chain(v6.lines().filter_map(default_v6))
        .filter(|interface| interfaces.contains(*interface))
        .collect();
    let addresses = text("proc/net/if_inet6");
    let networks = addresses.lines().filter_map(network_v6);
    // One per interface is sufficient.
    let networks: BTreeMap<&str, String> = networks
        .chain(v4.lines().filter_map(network_v4))
        .filter(|(interface, _)| interfaces.contains(*interface))
        .collect();
    let defaults = defaults.into_iter().map(|interface| Use::DefaultRoute {
        interface: interface.to_owned(),
    });
    let networks = networks
        .into_iter()
        .map(|(interface, network)| Use::Network {
            interface: interface.to_owned(),
            network,
        });
    let mut uses: Vec<Use> = defaults.chain(networks).collect();
    // The routes of a VRF are in none of these lists, and a bridge needs no address to serve others.
    if uses.is_empty() {
        uses = interfaces
            .into_iter()
            .filter_map(|name| member(root, name))
            .collect();
    }
    uses
}

/// The use of an interface that is up by the bridge, bond or VRF that it belongs to.
fn member(root: &SysRoot, interface: String) -> Option<Use> {
    let directory = format!("sys/class/net/{interface}");
    let flags = root.word(format!("{directory}/flags"));
    let flags = u32::from_str_radix(flags.strip_prefix("0x")?, 16).ok()?;
    let master = root.real(format!("{directory}/master"))?;
    let of = master.file_name()?.to_string_lossy().into_owned();
    (flags & INTERFACE_UP != 0).then_some(Use::Member { interface, of })
}

/// Names of the interfaces below `function`, and of the bridges, bonds and VLANs on top of them.
fn interfaces(root: &SysRoot, function: &Path) -> BTreeSet<String> {
    let is_below = |name: &String| {
        let real = root.real(format!("sys/class/net/{name}"));
        real.is_some_and(|real| real.starts_with(function))
    };
    let mut new: Vec<String> = root.names("sys/class/net");
    new.retain(is_below);
    let mut found = BTreeSet::new();
    while let Some(name) = new.pop() {
        let entries = root.names(format!("sys/class/net/{name}"));
        if found.insert(name) {
            let upper = entries
                .iter()
                .filter_map(|entry| entry.strip_prefix("upper_"));
            new.extend(upper.map(str::to_owned));
        }
    }
    found
}

/// The interface of a line of `/proc/net/route` that is a default route.
fn default_v4(line: &str) -> Option<&str> {
    let columns: Vec<&str> = line.split_whitespace().collect();
    let [
        interface,
        "00000000",
        _gateway,
        flags,
        _,
        _,
        _,
        "00000000",
        ..,
    ] = columns[..]
    else {
        return None;
    };
    is_usable(flags).then_some(interface)
}

/// The interface of a line of `/proc/net/route` and the network that is reached through it, but for
/// the default and for link-local addresses (RFC 3927). A line is there as long as the interface is up
/// and has an address.
fn network_v4(line: &str) -> Option<(&str, String)> {
    let columns: Vec<&str> = line.split_whitespace().collect();
    let [interface, destination, _, flags, _, _, _, mask, ..] = columns[..] else {
        return None;
    };
    // The bytes of the address, as the CPU reads them as a number.
    let number = |text| u32::from_str_radix(text, 16).ok();
    let network = Ipv4Addr::from(number(destination)?.to_ne_bytes());
    let prefix = number(mask)?.count_ones();
    (is_usable(flags) && prefix > 0 && !network.is_link_local())
        .then(|| (interface, format!("{network}/{prefix}")))
}

/// The interface of a line of `/proc/net/if_inet6` and its address, but for link-local ones. An interface
/// that is down has none.
fn network_v6(line: &str) -> Option<(&str, String)> {
    let columns: Vec<&str> = line.split_whitespace().collect();
    let [address, _, prefix, _, _, interface] = columns[..] else {
        return None;
    };
    let address = Ipv6Addr::from(u128::from_str_radix(address, 16).ok()?);
    let prefix = u8::from_str_radix(prefix, 16).ok()?;
    (!address.is_unicast_link_local()).then(|| (interface, format!("{address}/{prefix}")))
}

/// The interface of a line of `/proc/net/ipv6_route` that is a default route.
fn default_v6(line: &str) -> Option<&str> {
    let columns: Vec<&str> = line.split_whitespace().collect();
    let [destination, "00", _, _, _, _, _, _, flags, interface] = columns[..] else {
        return None;
    };
    let is_any = destination.bytes().all(|digit| digit == b'0');
    (is_any && is_usable(flags)).then_some(interface)
}

fn is_usable(flags: &str) -> bool {
    u32::from_str_radix(flags, 16).is_ok_and(|flags| flags & (UP | REJECT) == UP)
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::sys_root::tests::Fake;

    const FUNCTION: &str = "sys/devices/pci0000:00/0000:00:09.0/0000:02:00.0";
    const V4: &str = "\
Iface\tDestination\tGateway \tFlags\tRefCnt\tUse\tMetric\tMask\t\tMTU\tWindow\tIRTT
br0\t00000000\t0102000A\t0003\t0\t0\t0\t00000000\t0\t0\t0
eth0\t0002000A\t00000000\t0001\t0\t0\t0\t00FFFFFF\t0\t0\t0
";

    fn machine() -> (Fake, std::path::PathBuf) {
        let fake = Fake::new();
        fake.directory(&format!("{FUNCTION}/net/eth0"));
        fake.link("sys/class/net/eth0", &format!("{FUNCTION}/net/eth0"));
        fake.directory("sys/class/net/br0");
        let function = fake.root.real(FUNCTION).unwrap();
        (fake, function)
    }

    #[test]
    fn the_default_route_is_found_through_a_bridge() {
        let (fake, function) = machine();
        // Without that of eth0 itself.
        let v4: Vec<_> = V4.lines().take(2).collect();
        fake.write("proc/net/route", &v4.join("\n"));
        assert_eq!(uses(&fake.root, &function), []);
        fake.directory(&format!("{FUNCTION}/net/eth0/upper_br0"));
        assert_eq!(
            uses(&fake.root, &function),
            [Use::DefaultRoute {
                interface: "br0".into()
            }]
        );
    }

    #[test]
    fn an_interface_that_is_up_with_an_address_is_in_use() {
        let (fake, function) = machine();
        let found = || uses(&fake.root, &function);
        let network = |network: &str| Use::Network {
            interface: "eth0".into(),
            network: network.into(),
        };
        fake.write("proc/net/route", V4);
        assert_eq!(found(), [network("10.0.2.0/24")]);
        // Addresses that it has assigned itself do not count.
        fake.write("proc/net/route", &V4.replace("0002000A", "0000FEA9"));
        let v6 = |address: &str, scope: &str| format!("{address} 02 40 {scope} 80     eth0\n");
        let own = v6("fe80000000000000505400fffe123456", "20");
        fake.write("proc/net/if_inet6", &own);
        assert_eq!(found(), []);
        let global = v6("20010db8000000000000000000000001", "00");
        fake.write("proc/net/if_inet6", &[own, global].concat());
        assert_eq!(found(), [network("2001:db8::1/64")]);
    }

    #[test]
    fn a_member_of_a_bridge_without_an_address_is_in_use_while_it_is_up() {
        let (fake, function) = machine();
        let eth0 = format!("{FUNCTION}/net/eth0");
        fake.write(&format!("{eth0}/flags"), "0x1003\n");
        assert_eq!(uses(&fake.root, &function), []);
        fake.link(&format!("{eth0}/master"), "sys/class/net/br0");
        let member = Use::Member {
            interface: "eth0".into(),
            of: "br0".into(),
        };
        assert_eq!(uses(&fake.root, &function), [member]);
        fake.write(&format!("{eth0}/flags"), "0x1002\n");
        assert_eq!(uses(&fake.root, &function), []);
    }

    #[test]
    fn the_kernels_own_unreachable_default_is_none() {
        let route = |flags: &str, interface: &str| {
            format!(
                "{0} 00 {0} 00 {0} ffffffff 00000001 00000000 {flags} {interface}",
                "0".repeat(32)
            )
        };
        assert_eq!(default_v6(&route("00200200", "lo")), None);
        assert_eq!(default_v6(&route("00000003", "eth0")), Some("eth0"));
        assert_eq!(
            default_v6(&route("00000003", "eth0").replacen("00 ", "40 ", 1)),
            None
        );
    }

    proptest::proptest! {
        #[test]
        fn no_text_makes_it_panic(line in "\\PC*") {
            default_v4(&line);
            default_v6(&line);
            network_v4(&line);
            network_v6(&line);
        }
    }
}
