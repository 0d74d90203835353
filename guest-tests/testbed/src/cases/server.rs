// SPDX-License-Identifier: Apache-2.0 OR BSD-3-Clause

//! What the guests' networks lead to: a server on this machine that hands out bytes and hashes what it gets.

use std::io::{self, BufRead, BufReader, Read, Write};
use std::net::{Ipv4Addr, SocketAddrV4, TcpListener, TcpStream};
use std::sync::Arc;
use std::sync::atomic::{AtomicBool, Ordering};
use std::thread::{self, JoinHandle};
use std::time::Duration;

use crate::image;

/// After this without a byte a client is taken to be gone.
const CLIENT_TIMEOUT: Duration = Duration::from_secs(120);

/// Most bytes that a client may send.
const MAX_BYTES: u64 = 64 << 20;

/// An HTTP server on the loopback interface; ends when dropped. GET returns its bytes, and their
/// SHA-256 in the header `X-SHA256`; POST the SHA-256 of what was posted, on a separate line.
#[derive(Debug)]
pub struct Server {
    port: u16,
    ends: Arc<AtomicBool>,
    thread: Option<JoinHandle<()>>,
}

impl Server {
    /// Starts a server of these bytes on a free port.
    pub fn start(contents: Vec<u8>) -> io::Result<Self> {
        let listener = TcpListener::bind((Ipv4Addr::LOCALHOST, 0))?;
        let port = listener.local_addr()?.port();
        let ends = Arc::new(AtomicBool::new(false));
        let hash = image::sha256(&contents);
        let (ended, served) = (Arc::clone(&ends), Arc::new((contents, hash)));
        let thread = thread::spawn(move || {
            for client in listener.incoming().flatten() {
                if ended.load(Ordering::Relaxed) {
                    break;
                }
                let served = Arc::clone(&served);
                // A client that fails reports it in the guest, where it is checked.
                thread::spawn(move || _ = serve(client, &served.0, &served.1));
            }
        });
        Ok(Self {
            port,
            ends,
            thread: Some(thread),
        })
    }

    /// Where it listens.
    pub fn port(&self) -> u16 {
        self.port
    }
}

impl Drop for Server {
    fn drop(&mut self) {
        self.ends.store(true, Ordering::Relaxed);
        // Wakes the thread; if it cannot be reached it has ended.
        if TcpStream::connect(SocketAddrV4::new(Ipv4Addr::LOCALHOST, self.port)).is_ok()
            && let Some(thread) = self.thread.take()
        {
            let _ = thread.join();
        }
    }
}

fn serve(client: TcpStream, contents: &[u8], hash: &str) -> io::Result<()> {
    client.set_read_timeout(Some(CLIENT_TIMEOUT))?;
    client.set_write_timeout(Some(CLIENT_TIMEOUT))?;
    let mut input = BufReader::new(client.try_clone()?);
    let mut request = String::new();
    input.read_line(&mut request)?;
    let mut length = 0;
    loop {
        let mut header = String::new();
        if input.read_line(&mut header)? == 0 || header.trim().is_empty() {
            break;
        }
        if let Some((name, value)) = header.split_once(':')
            && name.eq_ignore_ascii_case("content-length")
        {
            length = value.trim().parse().unwrap_or(0);
        }
    }
    if request.starts_with("GET ") {
        return answer(client, &format!("X-SHA256: {hash}\r\n"), contents);
    }
    let mut posted = Vec::new();
    input.take(length.min(MAX_BYTES)).read_to_end(&mut posted)?;
    let posted = image::sha256(&posted) + "\n";
    answer(client, "", posted.as_bytes())
}

/// `header` is a whole line, or nothing.
fn answer(mut client: TcpStream, header: &str, body: &[u8]) -> io::Result<()> {
    let length = body.len();
    write!(
        client,
        "HTTP/1.0 200 OK\r\nContent-Length: {length}\r\n{header}\r\n"
    )?;
    client.write_all(body)
}

#[cfg(test)]
mod tests {
    use super::*;

    fn ask(server: &Server, request: &[u8]) -> Vec<u8> {
        let mut client = TcpStream::connect((Ipv4Addr::LOCALHOST, server.port())).unwrap();
        client.write_all(request).unwrap();
        let mut response = Vec::new();
        client.read_to_end(&mut response).unwrap();
        response
    }

    #[test]
    fn bytes_go_out_and_the_hash_of_bytes_comes_back() {
        let server = Server::start(vec![0, 1, 2, 255]).unwrap();
        let got = ask(&server, b"GET / HTTP/1.1\r\nHost: x\r\n\r\n");
        assert!(got.ends_with(b"\r\n\r\n\x00\x01\x02\xff"), "{got:?}");
        let header = format!("\r\nX-SHA256: {}\r\n", image::sha256(&[0, 1, 2, 255]));
        assert!(String::from_utf8_lossy(&got).contains(&header), "{got:?}");
        let got = ask(&server, b"POST / HTTP/1.0\r\ncontent-length: 3\r\n\r\nabc");
        let hash = image::sha256(b"abc") + "\n";
        assert!(got.ends_with(hash.as_bytes()), "{got:?}");
    }
}
