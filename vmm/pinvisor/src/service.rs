// SPDX-License-Identifier: Apache-2.0 OR BSD-3-Clause

//! What a service manager is told of a run, by sd_notify(3): that the guest runs, that the monitor is alive, and that
//! the run ends.
//!
//! States and the watchdog's time are of the crate `sd-notify`. Its `notify` opens a socket for each message, which a
//! confined process may not do, knows no abstract addresses, and waits for a service manager that does not read. So the
//! socket is opened here, once.

use std::cell::Cell;
use std::env;
use std::ffi::OsStr;
use std::io;
use std::os::linux::net::SocketAddrExt;
use std::os::unix::ffi::OsStrExt;
use std::os::unix::net::{SocketAddr, UnixDatagram};
use std::time::Duration;

use sd_notify::NotifyState;
use vmm::{ExitReason, Heartbeat};

/// The variable with the socket's address.
const SOCKET: &str = "NOTIFY_SOCKET";

/// How long a message may wait for a service manager that does not read, as long as a line of the log.
const SEND_TIMEOUT: Duration = Duration::from_millis(200);

/// The longest text of a status: a longer message than PIPE_BUF is dropped (systemd, src/core/manager.c,
/// `manager_dispatch_notify_fd`).
const LONGEST_STATUS: usize = 1024;

/// No heartbeat is faster, whatever the environment asks for.
const SHORTEST_INTERVAL: Duration = Duration::from_millis(10);

/// The service manager that started this process, if one did.
#[derive(Debug, Default)]
pub(crate) struct ServiceManager {
    socket: Option<UnixDatagram>,
    /// How often it wants a sign of life.
    interval: Option<Duration>,
    is_stopping: Cell<bool>,
    has_failed: Cell<bool>,
}

impl ServiceManager {
    /// The one that the environment names. One that cannot be reached is logged as a warning.
    pub fn of_environment() -> Self {
        Self::new(
            env::var_os(SOCKET).as_deref(),
            sd_notify::watchdog_enabled(),
        )
    }

    /// The one at `address`, which wants a sign of life within `watchdog` each time.
    fn new(address: Option<&OsStr>, watchdog: Option<Duration>) -> Self {
        let Some(address) = address else {
            return Self::default();
        };
        match connect(address) {
            Ok(socket) => Self {
                socket: Some(socket),
                // Half of it, as sd_watchdog_enabled(3) recommends.
                interval: watchdog
                    .filter(|time| !time.is_zero())
                    .map(|time| (time / 2).max(SHORTEST_INTERVAL)),
                ..Self::default()
            },
            Err(error) => {
                log::warn!(
                    "Cannot connect to the service manager ({SOCKET}={}), which will not be notified of this run: {error}",
                    address.display()
                );
                Self::default()
            }
        }
    }

    /// The guest runs.
    pub fn ready(&self) {
        self.tell(&[NotifyState::Ready, NotifyState::Status("The guest runs")]);
    }

    /// The monitor is alive.
    pub fn alive(&self) {
        self.tell(&[NotifyState::Watchdog]);
    }

    /// The guest is booted again.
    pub fn restarts(&self) {
        let status = NotifyState::Status("The guest restarts");
        self.tell(&[NotifyState::Watchdog, status]);
    }

    /// The run begins to end, for `reason` if that is known.
    pub fn stopping(&self, reason: Option<&ExitReason>) {
        if self.is_stopping.replace(true) {
            return;
        }
        let status = format!(
            "Releasing devices and memory: {}",
            reason.map_or("error", ExitReason::word)
        );
        self.tell(&[NotifyState::Stopping, NotifyState::Status(&status)]);
    }

    /// The run has ended, with `error` if it is one.
    pub fn ended(&self, error: Option<&str>) {
        let status = match error {
            Some(error) => one_line(error),
            None => "The guest has ended".to_owned(),
        };
        self.tell(&[NotifyState::Status(&status)]);
    }

    /// By what the event loop calls `report` often enough, if the service manager wants that.
    pub fn heartbeat<'a>(&self, report: &'a dyn Fn()) -> Option<Heartbeat<'a>> {
        let interval = self.interval?;
        Some(Heartbeat::new(interval, report))
    }

    /// Sends `states`. A failure is logged once.
    fn tell(&self, states: &[NotifyState<'_>]) {
        let Some(socket) = &self.socket else {
            return;
        };
        let lines = states.iter().map(|state| format!("{state}\n"));
        let sent = socket.send(lines.collect::<String>().as_bytes());
        if let Err(error) = sent
            && !self.has_failed.replace(true)
        {
            log::warn!("Cannot notify the service manager: {error}");
        }
    }
}

/// A socket whose messages go to `address`: an absolute path, or `@` and a name in the abstract namespace (unix(7)).
fn connect(address: &OsStr) -> io::Result<UnixDatagram> {
    let to = match address.as_bytes() {
        [b'@', name @ ..] => SocketAddr::from_abstract_name(name)?,
        [b'/', ..] => SocketAddr::from_pathname(address)?,
        _ => {
            return Err(io::Error::new(
                io::ErrorKind::InvalidInput,
                "neither an absolute path nor @ with the name of an abstract socket",
            ));
        }
    };
    let socket = UnixDatagram::unbound()?;
    socket.connect_addr(&to)?;
    socket.set_write_timeout(Some(SEND_TIMEOUT))?;
    Ok(socket)
}

/// `text` as a status: each line of a message is a statement, and this must not become a second one.
fn one_line(text: &str) -> String {
    let mut line = text.replace(char::is_control, " ");
    line.truncate(line.floor_char_boundary(LONGEST_STATUS));
    line
}

#[cfg(test)]
mod tests {
    use std::path::PathBuf;

    use super::*;

    /// A service manager's socket in a folder.
    fn listen() -> (tempfile::TempDir, PathBuf, UnixDatagram) {
        let folder = tempfile::tempdir().unwrap();
        let path = folder.path().join("notify");
        let socket = UnixDatagram::bind(&path).unwrap();
        socket.set_nonblocking(true).unwrap();
        (folder, path, socket)
    }

    fn received(socket: &UnixDatagram) -> Vec<String> {
        let mut buffer = [0; 8192];
        std::iter::from_fn(|| {
            let length = socket.recv(&mut buffer).ok()?;
            Some(String::from_utf8(buffer[..length].to_vec()).unwrap())
        })
        .collect()
    }

    #[test]
    fn a_run_is_reported_from_its_start_to_its_end() {
        let (_folder, path, socket) = listen();
        let manager = ServiceManager::new(Some(path.as_os_str()), None);
        manager.ready();
        manager.alive();
        manager.restarts();
        manager.stopping(Some(&ExitReason::Signal(15)));
        // Once.
        manager.stopping(None);
        manager.ended(None);
        let expected = [
            "READY=1\nSTATUS=The guest runs\n",
            "WATCHDOG=1\n",
            "WATCHDOG=1\nSTATUS=The guest restarts\n",
            "STOPPING=1\nSTATUS=Releasing devices and memory: signal\n",
            "STATUS=The guest has ended\n",
        ];
        assert_eq!(received(&socket), expected);
    }

    #[test]
    fn abstract_sockets_are_reached_too() {
        let name = format!("pinvisor-test-{}", std::process::id());
        let address = SocketAddr::from_abstract_name(&name).unwrap();
        let socket = UnixDatagram::bind_addr(&address).unwrap();
        socket.set_nonblocking(true).unwrap();
        let manager = ServiceManager::new(Some(OsStr::new(&format!("@{name}"))), None);
        manager.alive();
        assert_eq!(received(&socket), ["WATCHDOG=1\n"]);
    }

    #[test]
    fn an_address_that_leads_nowhere_harms_nothing() {
        let folder = tempfile::tempdir().unwrap();
        let file = folder.path().join("file");
        std::fs::write(&file, "").unwrap();
        let stream = folder.path().join("stream");
        let _listener = std::os::unix::net::UnixListener::bind(&stream).unwrap();
        let long = format!("/{}", "x".repeat(4096));
        let long_name = format!("@{}", "x".repeat(4096));
        let watchdog = Some(Duration::from_secs(1));
        for address in [
            "",
            "@",
            "relative",
            "vsock:2:1",
            "/nowhere/notify",
            "/dev/null",
            &long,
            &long_name,
            file.to_str().unwrap(),
            stream.to_str().unwrap(),
        ] {
            let manager = ServiceManager::new(Some(OsStr::new(address)), watchdog);
            assert!(manager.socket.is_none(), "{address}");
            assert!(manager.heartbeat(&|| ()).is_none(), "{address}");
            manager.ready();
            manager.stopping(None);
        }
        assert!(
            connect(OsStr::from_bytes(b"/\xff\0"))
                .unwrap_err()
                .kind()
                .eq(&io::ErrorKind::InvalidInput)
        );
    }

    #[test]
    fn one_that_is_gone_or_does_not_read_does_not_block() {
        let (_folder, path, socket) = listen();
        let manager = ServiceManager::new(Some(path.as_os_str()), None);
        // Until its queue is full (net.unix.max_dgram_qlen), and one more.
        while !manager.has_failed.get() {
            manager.alive();
        }
        manager.alive();
        drop(socket);
        manager.ready();
    }

    #[test]
    fn signs_of_life_come_twice_as_often_as_they_are_wanted() {
        let (_folder, path, _socket) = listen();
        let interval = |watchdog| ServiceManager::new(Some(path.as_os_str()), watchdog).interval;
        let micros = |number| Some(Duration::from_micros(number));
        assert_eq!(interval(None), None);
        assert_eq!(interval(micros(0)), None);
        assert_eq!(interval(micros(1)), Some(SHORTEST_INTERVAL));
        assert_eq!(interval(micros(3_000_000)), micros(1_500_000));
        assert!(interval(micros(u64::MAX)).is_some());
        // Without a socket there is nothing to do.
        assert_eq!(ServiceManager::new(None, micros(3_000_000)).interval, None);
    }

    #[test]
    fn an_error_text_is_one_status_and_nothing_else() {
        let (_folder, path, socket) = listen();
        let manager = ServiceManager::new(Some(path.as_os_str()), None);
        manager.ended(Some("it failed\nMAINPID=1\r\nWATCHDOG=trigger"));
        manager.ended(Some(&"ä".repeat(5000)));
        let messages = received(&socket);
        assert_eq!(
            messages[0],
            "STATUS=it failed MAINPID=1  WATCHDOG=trigger\n"
        );
        assert_eq!(messages[1].len(), "STATUS=\n".len() + LONGEST_STATUS);
    }
}
