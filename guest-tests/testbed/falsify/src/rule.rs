// SPDX-License-Identifier: Apache-2.0 OR BSD-3-Clause

//! What is falsified, and how.

use std::fmt;
use std::sync::atomic::{AtomicU64, Ordering};

/// The type of iommufd's and VFIO's requests (`_IO(';', number)`).
const SIZED_REQUESTS: u64 = b';' as u64;

/// What is false about its end.
#[derive(Clone, Debug, PartialEq, Eq)]
pub enum Lie {
    /// The result, as a system call returns it: -22 is EINVAL.
    Returns(i32),
    /// Bytes of the answer, and where they begin.
    Field(usize, Vec<u8>),
}

impl Lie {
    fn parse(text: &str) -> Option<Self> {
        let (what, value) = text.split_once('=')?;
        if what == "returns" {
            return Some(Self::Returns(value.parse().ok()?));
        }
        let (kind, at) = what.split_once('@')?;
        let width = match kind {
            "u8" => 1,
            "u16" => 2,
            "u32" => 4,
            "u64" => 8,
            _ => return None,
        };
        let bytes = number(value)?.to_le_bytes();
        let (low, high) = bytes.split_at(width);
        let fits = high.iter().all(|byte| *byte == 0);
        fits.then_some(Self::Field(at.parse().ok()?, low.to_vec()))
    }

    /// The call's result, if it is not to reach the kernel.
    pub fn result(&self) -> Option<i32> {
        match self {
            Self::Returns(result) => Some(*result),
            Self::Field(..) => None,
        }
    }

    /// Writes it into the kernel's answer.
    pub fn apply(&self, answer: &mut [u8]) -> Result<(), String> {
        let Self::Field(at, bytes) = self else {
            return Ok(());
        };
        let length = answer.len();
        let field = answer
            .get_mut(*at..)
            .and_then(|rest| rest.get_mut(..bytes.len()));
        field
            .ok_or_else(|| format!("nothing of {} bytes at {at} in {length}", bytes.len()))?
            .copy_from_slice(bytes);
        Ok(())
    }
}

/// When to inject which result.
#[derive(Debug)]
pub struct Rule {
    text: String,
    /// `ioctl` or `pread`, and its request or offset.
    call: String,
    number: u64,
    first: u64,
    last: u64,
    lie: Lie,
    seen: AtomicU64,
}

/// Parses rules with `;` between them.
pub fn parse(text: &str) -> Result<Vec<Rule>, String> {
    text.split(';')
        .map(str::trim)
        .filter(|rule| !rule.is_empty())
        .map(|rule| Rule::parse(rule).ok_or_else(|| format!("`{rule}` is not a rule")))
        .collect()
}

impl Rule {
    fn parse(text: &str) -> Option<Self> {
        let words: Vec<_> = text.split_whitespace().collect();
        let [call @ ("ioctl" | "pread"), number, which, lie] = words[..] else {
            return None;
        };
        let number = self::number(number)?;
        let (first, last) = match which.strip_suffix('-') {
            Some(first) => (first.parse().ok()?, u64::MAX),
            None => (which.parse().ok()?, which.parse().ok()?),
        };
        let lie = Lie::parse(lie)?;
        let has_size = call == "pread" || number >> 8 == SIZED_REQUESTS;
        let sound = first > 0 && (has_size || lie.result().is_some());
        sound.then(|| Self {
            text: text.to_owned(),
            call: call.to_owned(),
            number,
            first,
            last,
            lie,
            seen: AtomicU64::new(0),
        })
    }

    /// Whether to lie about this call, which is counted.
    pub fn is_due(&self, call: &str, number: u64) -> bool {
        if self.call != call || self.number != number {
            return false;
        }
        let seen = self.seen.fetch_add(1, Ordering::Relaxed) + 1;
        (self.first..=self.last).contains(&seen)
    }

    /// The result.
    pub fn lie(&self) -> &Lie {
        &self.lie
    }
}

impl fmt::Display for Rule {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str(&self.text)
    }
}

fn number(text: &str) -> Option<u64> {
    match text.strip_prefix("0x") {
        Some(digits) => u64::from_str_radix(digits, 16).ok(),
        None => text.parse().ok(),
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_rule_is_due_for_its_calls_only() {
        let rules =
            parse("ioctl 0x3b95 2 returns=-22; pread 0x70000000004 2- u16@0=0x107;").unwrap();
        let due = |rule: usize, call, number| rules[rule].is_due(call, number);
        assert!(!due(0, "pread", 0x3b95) && !due(0, "ioctl", 0x3b96));
        assert_eq!(
            [(); 4].map(|()| due(0, "ioctl", 0x3b95)),
            [false, true, false, false]
        );
        assert_eq!(
            [(); 4].map(|()| due(1, "pread", 7 << 40 | 4)),
            [false, true, true, true]
        );
        assert_eq!(rules[0].lie(), &Lie::Returns(-22));
        assert_eq!(rules[1].lie(), &Lie::Field(0, vec![7, 1]));
    }

    #[test]
    fn what_is_no_rule_is_refused() {
        for text in [
            "ioctl",
            "write 1 1 returns=0",
            "ioctl x 1 returns=0",
            "ioctl 1 0 returns=0",
            "ioctl 1 -1 returns=0",
            "ioctl 1 1 returns=",
            "ioctl 1 1 returns=0 more",
            "ioctl 0x3b95 1 u24@0=0",
            "ioctl 0x3b95 1 u8@0=256",
            "ioctl 0x3b95 1 u8@-1=0",
            "pread 0 1 u8=1",
            // The structures of other requests do not encode their size.
            "ioctl 0xae01 1 u8@0=0",
        ] {
            assert!(parse(text).is_err(), "{text}");
        }
        assert!(parse("").unwrap().is_empty());
    }

    #[test]
    fn a_field_is_written_inside_the_answer_only() {
        let lie = Lie::parse("u32@2=0x01020304").unwrap();
        let mut answer = [9; 7];
        lie.apply(&mut answer).unwrap();
        assert_eq!(answer, [9, 9, 4, 3, 2, 1, 9]);
        assert!(lie.apply(&mut answer[..5]).is_err());
        assert!(Lie::Field(usize::MAX, vec![1]).apply(&mut answer).is_err());
    }
}
