// SPDX-License-Identifier: Apache-2.0 OR BSD-3-Clause

//! As much of HTTP/1.0 (RFC 1945) as is needed to fetch and to send bytes.

use std::fmt::Write as _;
use std::io::{self, BufRead, BufReader, Read, Write};

use sha2::{Digest, Sha256};

/// Most bytes of a response's head, and of an answer that is text.
const MAX_TEXT: u64 = 16 << 10;

/// What was fetched.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Fetched {
    /// Bytes of the body.
    pub bytes: u64,
    /// Their SHA-256, in hexadecimal.
    pub sha256: String,
    /// The server's hash of the data.
    pub announced: Option<String>,
}

/// The head of a response.
#[derive(Debug, Default, PartialEq, Eq)]
struct Head {
    length: Option<u64>,
    announced: Option<String>,
}

/// Fetches `/` and hashes it; `moved` is called with the number of bytes received.
///
/// # Errors
/// The stream's; [`InvalidData`](io::ErrorKind::InvalidData) for what is no good response,
/// [`UnexpectedEof`](io::ErrorKind::UnexpectedEof) for a body that is too short.
pub fn get(
    mut stream: impl Read + Write,
    host: &str,
    moved: &mut dyn FnMut(usize),
) -> io::Result<Fetched> {
    stream.write_all(format!("GET / HTTP/1.0\r\nHost: {host}\r\n\r\n").as_bytes())?;
    let mut input = BufReader::new(stream);
    let head = head(&mut input)?;
    let mut body = input.take(head.length.unwrap_or(u64::MAX));
    let (mut hash, mut bytes) = (Sha256::new(), 0);
    let mut buffer = vec![0; 64 << 10];
    loop {
        let read = match body.read(&mut buffer) {
            Err(error) if error.kind() == io::ErrorKind::Interrupted => continue,
            read => read?,
        };
        if read == 0 {
            break;
        }
        hash.update(&buffer[..read]);
        bytes += read as u64;
        moved(read);
    }
    if head.length.is_some_and(|length| length != bytes) {
        return Err(io::ErrorKind::UnexpectedEof.into());
    }
    Ok(Fetched {
        bytes,
        sha256: hex(&hash.finalize()),
        announced: head.announced,
    })
}

/// Sends `body` to `/` and returns the line that the server answers with.
///
/// # Errors
/// As [`get`].
pub fn post(mut stream: impl Read + Write, host: &str, body: &[u8]) -> io::Result<String> {
    let length = body.len();
    let request = format!("POST / HTTP/1.0\r\nHost: {host}\r\nContent-Length: {length}\r\n\r\n");
    stream.write_all(request.as_bytes())?;
    stream.write_all(body)?;
    let mut input = BufReader::new(stream);
    head(&mut input)?;
    let mut answer = String::new();
    input.take(MAX_TEXT).read_to_string(&mut answer)?;
    Ok(answer.trim().into())
}

/// SHA-256 in hexadecimal.
#[must_use]
pub fn sha256(bytes: &[u8]) -> String {
    hex(&Sha256::digest(bytes))
}

fn hex(bytes: &[u8]) -> String {
    bytes.iter().fold(String::new(), |mut text, byte| {
        // Writing to a string cannot fail.
        let _ = write!(text, "{byte:02x}");
        text
    })
}

fn head(input: &mut impl BufRead) -> io::Result<Head> {
    let invalid = |what: &str| io::Error::new(io::ErrorKind::InvalidData, what.to_string());
    let mut lines = input.take(MAX_TEXT);
    let mut line = String::new();
    lines.read_line(&mut line)?;
    let status = line.split_ascii_whitespace().nth(1);
    if !line.starts_with("HTTP/1.") || status != Some("200") {
        return Err(invalid(&format!("the server answers {:?}", line.trim())));
    }
    let mut head = Head::default();
    loop {
        line.clear();
        if lines.read_line(&mut line)? == 0 {
            return Err(invalid("the response's head does not end"));
        }
        if line.trim().is_empty() {
            return Ok(head);
        }
        let Some((name, value)) = line.split_once(':') else {
            continue;
        };
        match name.to_ascii_lowercase().as_str() {
            "content-length" => {
                let length = value.trim().parse();
                head.length = Some(length.map_err(|_| invalid("a bad Content-Length"))?);
            }
            "x-sha256" => head.announced = Some(value.trim().into()),
            _ => {}
        }
    }
}

#[cfg(test)]
mod tests {
    use proptest::prelude::*;

    use super::*;

    /// Answers with fixed bytes.
    struct Canned {
        answer: io::Cursor<Vec<u8>>,
        asked: Vec<u8>,
    }

    impl Canned {
        fn new(answer: &[u8]) -> Self {
            Self {
                answer: io::Cursor::new(answer.to_vec()),
                asked: Vec::new(),
            }
        }
    }

    impl Read for Canned {
        fn read(&mut self, into: &mut [u8]) -> io::Result<usize> {
            self.answer.read(into)
        }
    }

    impl Write for Canned {
        fn write(&mut self, bytes: &[u8]) -> io::Result<usize> {
            self.asked.write(bytes)
        }

        fn flush(&mut self) -> io::Result<()> {
            Ok(())
        }
    }

    fn fetch(answer: &[u8]) -> io::Result<Fetched> {
        get(Canned::new(answer), "x", &mut |_| ())
    }

    #[test]
    fn a_body_is_hashed() {
        let answer = b"HTTP/1.0 200 OK\r\ncontent-LENGTH: 3\r\nX-SHA256: ab\r\n\r\nabcrest";
        let mut sum = 0;
        let fetched = get(Canned::new(answer), "x", &mut |moved| sum += moved).unwrap();
        assert_eq!((fetched.bytes, sum), (3, 3));
        assert_eq!(fetched.sha256, sha256(b"abc"));
        assert!(fetched.sha256.starts_with("ba7816bf"));
        assert_eq!(fetched.announced.as_deref(), Some("ab"));
        let open = fetch(b"HTTP/1.1 200 OK\r\n\r\nabc").unwrap();
        assert_eq!((open.bytes, open.announced), (3, None));
    }

    #[test]
    fn bad_responses_are_errors() {
        let kind = |answer: &[u8]| fetch(answer).unwrap_err().kind();
        assert_eq!(kind(b"HTTP/1.0 404 No\r\n\r\n"), io::ErrorKind::InvalidData);
        assert_eq!(kind(b"HTTP/1.0 200 OK\r\nA: b"), io::ErrorKind::InvalidData);
        let short = b"HTTP/1.0 200 OK\r\nContent-Length: 9\r\n\r\nabc";
        assert_eq!(kind(short), io::ErrorKind::UnexpectedEof);
        let endless = [b"HTTP/1.0 200 OK\r\n".to_vec(), vec![b'x'; 1 << 20]].concat();
        assert_eq!(kind(&endless), io::ErrorKind::InvalidData);
    }

    #[test]
    fn what_is_sent_is_framed_and_the_answer_is_its_line() {
        let mut server = Canned::new(b"HTTP/1.0 200 OK\r\n\r\ncafe\n");
        assert_eq!(post(&mut server, "h", b"\0\n").unwrap(), "cafe");
        let expected = b"POST / HTTP/1.0\r\nHost: h\r\nContent-Length: 2\r\n\r\n\0\n";
        assert_eq!(server.asked, expected);
    }

    proptest! {
        #[test]
        fn any_answer_is_read_or_refused(bytes: Vec<u8>) {
            let _ = fetch(&bytes);
            let _ = fetch(&[b"HTTP/1.0 200 OK\r\n".to_vec(), bytes].concat());
        }
    }
}
