// SPDX-License-Identifier: Apache-2.0 OR BSD-3-Clause

//! Bytes of a serial port into lines, in bounded memory.

/// Bytes that are kept of a line; the longest one with only numbers in it is below 300.
pub const MAX_LINE: usize = 1024;

/// Cuts a stream into lines. Carriage return and line feed both end one.
#[derive(Debug, Default)]
pub struct Lines {
    line: Vec<u8>,
    cut: bool,
    cut_lines: u64,
}

impl Lines {
    /// Takes the next bytes and calls `each` with every line that ends in them, without escape
    /// sequences, and with what is no UTF-8 replaced.
    pub fn feed(&mut self, mut bytes: &[u8], mut each: impl FnMut(&str)) {
        while let Some(end) = bytes.iter().position(|byte| matches!(byte, b'\n' | b'\r')) {
            let (line, rest) = bytes.split_at(end);
            self.push(line);
            self.end(&mut each);
            bytes = rest.get(1..).unwrap_or_default();
        }
        self.push(bytes);
    }

    /// Ends the last line, if it has no end, and returns how many lines were cut.
    pub fn finish(mut self, mut each: impl FnMut(&str)) -> u64 {
        self.end(&mut each);
        self.cut_lines
    }

    fn push(&mut self, bytes: &[u8]) {
        let room = MAX_LINE - self.line.len();
        self.cut |= bytes.len() > room;
        self.line
            .extend_from_slice(bytes.get(..room).unwrap_or(bytes));
    }

    fn end(&mut self, each: &mut impl FnMut(&str)) {
        if !self.line.is_empty() {
            let text = String::from_utf8_lossy(&self.line);
            match text.contains(char::is_control) {
                true => each(&anstream::adapter::strip_str(&text).to_string()),
                false => each(&text),
            }
        }
        self.cut_lines += u64::from(self.cut);
        self.cut = false;
        self.line.clear();
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn lines(chunks: &[&[u8]]) -> (Vec<String>, u64) {
        let mut lines = Lines::default();
        let mut all = Vec::new();
        for chunk in chunks {
            lines.feed(chunk, |line| all.push(line.to_owned()));
        }
        let cut = lines.finish(|line| all.push(line.to_owned()));
        (all, cut)
    }

    #[test]
    fn lines_come_whole_however_they_are_fed() {
        let (all, cut) = lines(&[b"on", b"e\r", b"\ntw\x1b[1;3", b"1mo\n\n\rth\xffree"]);
        assert_eq!(all, ["one", "two", "th\u{fffd}ree"]);
        assert_eq!(cut, 0);
    }

    #[test]
    fn what_is_kept_of_a_line_is_bounded() {
        let long = vec![b'x'; 1 << 20];
        let mut lines = Lines::default();
        for _ in 0..4 {
            lines.feed(&long, |_| panic!("no line has ended"));
            assert!(lines.line.capacity() <= 2 * MAX_LINE);
        }
        let mut lengths = Vec::new();
        lines.feed(b"\nnext\n", |line| lengths.push(line.len()));
        assert_eq!(lengths, [MAX_LINE, 4]);
        assert_eq!(lines.finish(|_| ()), 1);
    }

    #[test]
    fn a_line_of_just_the_longest_length_is_not_cut() {
        assert_eq!(lines(&[&[b'x'; MAX_LINE], b"\n"]).1, 0);
        assert_eq!(lines(&[&[b'x'; MAX_LINE], b"x\n"]).1, 1);
    }
}
