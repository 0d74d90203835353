// SPDX-License-Identifier: Apache-2.0 OR BSD-3-Clause

//! The kernel's command line: its words, as Linux reads them (lib/cmdline.c, `next_arg`;
//! kernel/params.c, `parse_args`), and words that are added. Which ones matter to the machine depends on its architecture.

mod memory;

use std::borrow::Cow;

pub(crate) use memory::{Layout, NoBounceBuffers, bounce_buffers, warnings};

/// What the parser of Linux takes for the end of the kernel's words; the others are init's.
const END: &str = "--";

/// `line` with an option as the last of its name: the last one wins. It precedes what is not the
/// kernel's. A quote that does not end takes all that follows into its word.
#[cfg_attr(
    not(target_arch = "x86_64"),
    expect(dead_code, reason = "no other architecture adds options")
)]
pub(crate) fn with_option<'a>(line: &'a str, name: &str, value: &str) -> Cow<'a, str> {
    let option = format!("{name}={value}");
    let words = words(line);
    let end = words
        .iter()
        .position(|word| word.is_end() || !word.ends)
        .unwrap_or(words.len());
    let mut kernels = words[..end].iter().rev().map(|word| word.text);
    let is_same = |word: &&str| {
        word.strip_prefix(name)
            .is_some_and(|rest| rest.starts_with('='))
    };
    if kernels.find(is_same) == Some(&option) {
        return line.into();
    }
    match words.get(end) {
        Some(word) => {
            let (before, after) = line.split_at(word.start);
            format!("{before}{option} {after}").into()
        }
        None if line.is_empty() => option.into(),
        None => format!("{line} {option}").into(),
    }
}

/// One of the kernel's options.
#[derive(Clone, Debug, PartialEq, Eq)]
pub(crate) struct KernelOption<'a> {
    /// As written on the command line.
    pub text: &'a str,
    /// Its name, in which Linux takes `-` for `_`.
    pub name: String,
    /// What is behind the first `=`, if there is one.
    pub value: Option<&'a str>,
}

/// The kernel's options in `line`: all words before `--`.
pub(crate) fn options(line: &str) -> impl Iterator<Item = KernelOption<'_>> {
    let kernels = words(line).into_iter().take_while(|word| !word.is_end());
    kernels.map(|word| {
        let whole = unquoted(word.text);
        let (name, value) = match whole.split_once('=') {
            Some((name, value)) => (name, Some(unquoted(value))),
            None => (whole, None),
        };
        KernelOption {
            text: word.text,
            name: name.replace('-', "_"),
            value,
        }
    })
}

/// `text` without a quote at its start, and then without one at its end.
fn unquoted(text: &str) -> &str {
    match text.strip_prefix('"') {
        Some(rest) => rest.strip_suffix('"').unwrap_or(rest),
        None => text,
    }
}

/// A word of a command line.
struct Word<'a> {
    start: usize,
    text: &'a str,
    /// Its quotes, if it has any, end.
    ends: bool,
}

impl Word<'_> {
    /// Whether the kernel's words end before this one.
    fn is_end(&self) -> bool {
        self.text.trim_matches('"') == END
    }
}

/// The words of a command line, which quotes may hold together.
fn words(line: &str) -> Vec<Word<'_>> {
    let mut words = Vec::new();
    let mut start = None;
    let mut quoted = false;
    for (at, byte) in line.bytes().enumerate() {
        // What Linux's isspace() calls space; the vertical tab is not in the standard library's.
        let is_space = byte.is_ascii_whitespace() || byte == 0x0b;
        match start {
            None if !is_space => start = Some(at),
            Some(first) if is_space && !quoted => {
                words.push(Word {
                    start: first,
                    text: &line[first..at],
                    ends: true,
                });
                start = None;
            }
            _ => {}
        }
        quoted ^= byte == b'"';
    }
    words.extend(start.map(|start| Word {
        start,
        text: &line[start..],
        ends: !quoted,
    }));
    words
}

#[cfg(test)]
mod tests;
