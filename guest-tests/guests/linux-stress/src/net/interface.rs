// SPDX-License-Identifier: Apache-2.0 OR BSD-3-Clause

//! Bringing an interface up with an address (netdevice(7)).

#![expect(
    unsafe_code,
    reason = "requests of network interfaces have no safe wrapper"
)]

use std::io;
use std::net::{Ipv4Addr, SocketAddrV4, TcpStream};
use std::os::fd::AsRawFd;
use std::time::Duration;

use socket2::{Domain, Socket, Type};

use crate::options::Address;

/// Requests (Linux include/uapi/linux/sockios.h). C libraries differ in the type of such numbers.
const SIOCSIFFLAGS: u16 = 0x8914;
const SIOCSIFADDR: u16 = 0x8916;
const SIOCSIFNETMASK: u16 = 0x891c;

/// After so long without a byte, the other end is gone.
const SOCKET_TIMEOUT: Duration = Duration::from_secs(30);

/// Gives an interface an address and brings it up.
///
/// # Errors
/// The system's; [`InvalidInput`](io::ErrorKind::InvalidInput) for an impossible name.
pub fn bring_up(name: &str, address: &Address) -> io::Result<()> {
    let socket = Socket::new(Domain::IPV4, Type::DGRAM, None)?;
    let name = interface_name(name)?;
    let with_address = |ip: Ipv4Addr| libc::ifreq {
        ifr_name: name,
        ifr_ifru: libc::__c_anonymous_ifr_ifru {
            ifru_addr: socket_address(ip),
        },
    };
    let up = libc::IFF_UP | libc::IFF_RUNNING;
    let flags = libc::ifreq {
        ifr_name: name,
        ifr_ifru: libc::__c_anonymous_ifr_ifru {
            ifru_flags: libc::c_short::try_from(up).unwrap_or_default(),
        },
    };
    for (request, argument) in [
        (SIOCSIFADDR, with_address(address.ip)),
        (SIOCSIFNETMASK, with_address(address.mask())),
        (SIOCSIFFLAGS, flags),
    ] {
        // SAFETY: each of these requests reads a whole `ifreq`, which lives until the call returns, and writes
        // nothing.
        let result =
            unsafe { libc::ioctl(socket.as_raw_fd(), request.into(), &raw const argument) };
        if result != 0 {
            return Err(io::Error::last_os_error());
        }
    }
    Ok(())
}

/// A connection over this interface and no other.
///
/// # Errors
/// The system's.
pub fn connect(name: &str, server: SocketAddrV4) -> io::Result<TcpStream> {
    let socket = Socket::new(Domain::IPV4, Type::STREAM, None)?;
    socket.bind_device(Some(name.as_bytes()))?;
    socket.connect_timeout(&server.into(), SOCKET_TIMEOUT)?;
    socket.set_read_timeout(Some(SOCKET_TIMEOUT))?;
    socket.set_write_timeout(Some(SOCKET_TIMEOUT))?;
    Ok(socket.into())
}

fn interface_name(name: &str) -> io::Result<[libc::c_char; libc::IFNAMSIZ]> {
    let mut bytes = [0; libc::IFNAMSIZ];
    // The last byte stays 0.
    if name.len() >= bytes.len() {
        return Err(io::ErrorKind::InvalidInput.into());
    }
    for (to, from) in bytes.iter_mut().zip(name.bytes()) {
        *to = libc::c_char::from_ne_bytes([from]);
    }
    Ok(bytes)
}

/// A `sockaddr_in` in the shape of a `sockaddr`: port 0 in two bytes, then the address (ip(7)).
fn socket_address(ip: Ipv4Addr) -> libc::sockaddr {
    let mut data = [0; 14];
    for (to, from) in data[2..].iter_mut().zip(ip.octets()) {
        *to = libc::c_char::from_ne_bytes([from]);
    }
    libc::sockaddr {
        sa_family: libc::sa_family_t::try_from(libc::AF_INET).unwrap_or_default(),
        sa_data: data,
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn an_address_lies_behind_the_port() {
        let address = socket_address(Ipv4Addr::new(10, 0, 2, 255));
        assert_eq!(address.sa_family, 2);
        assert_eq!(address.sa_data[..7], [0, 0, 10, 0, 2, -1, 0]);
    }

    #[test]
    fn long_names_are_refused() {
        assert!(interface_name("enp0s1").is_ok());
        assert!(interface_name("0123456789abcdef").is_err());
    }
}
