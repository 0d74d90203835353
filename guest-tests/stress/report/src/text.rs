// SPDX-License-Identifier: Apache-2.0 OR BSD-3-Clause

//! Text from outside that can be shown anywhere.

use std::fmt;
use std::ops::Deref;

use serde::{Deserialize, Serialize};

/// Text without control characters or characters that reorder what is around them, cut at
/// [`Text::MAX`] bytes. It is not escaped for any format.
#[derive(Clone, Debug, Default, PartialEq, Eq, Hash, PartialOrd, Ord, Serialize, Deserialize)]
#[serde(from = "String")]
pub struct Text(String);

impl Text {
    /// Longest text in bytes, without the `…` at which a longer one is cut.
    pub const MAX: usize = 4096;
}

/// Unicode's explicit bidirectional formatting characters (UAX #9, section 2), which can show
/// text in another order than it is, and its two line separators.
fn reorders(character: char) -> bool {
    matches!(character, '\u{202a}'..='\u{202e}' | '\u{2066}'..='\u{2069}'
        | '\u{200e}' | '\u{200f}' | '\u{061c}' | '\u{2028}' | '\u{2029}')
}

impl From<&str> for Text {
    fn from(text: &str) -> Self {
        let mut kept = String::with_capacity(text.len().min(Self::MAX));
        for character in text.chars() {
            let shown = match character {
                '\t' => ' ',
                _ if character.is_control() || reorders(character) => char::REPLACEMENT_CHARACTER,
                _ => character,
            };
            if kept.len() + shown.len_utf8() > Self::MAX {
                kept.push('…');
                break;
            }
            kept.push(shown);
        }
        Self(kept)
    }
}

impl From<String> for Text {
    fn from(text: String) -> Self {
        text.as_str().into()
    }
}

impl Deref for Text {
    type Target = str;
    fn deref(&self) -> &str {
        &self.0
    }
}

impl fmt::Display for Text {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.pad(&self.0)
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn nothing_that_moves_a_cursor_is_left() {
        let text = Text::from("a\tb\u{1b}[2Jc\u{202e}d\r\n\0\u{9b}e");
        assert_eq!(
            &*text,
            "a b\u{fffd}[2Jc\u{fffd}d\u{fffd}\u{fffd}\u{fffd}\u{fffd}e"
        );
    }

    #[test]
    fn long_text_is_cut_between_characters() {
        let text = Text::from("ä".repeat(Text::MAX));
        assert_eq!(text.len(), Text::MAX + '…'.len_utf8());
        assert!(text.ends_with("ä…"));
    }

    #[test]
    fn reading_cleans_too() {
        let text: Text = serde_json::from_str("\"\\u001b[31mred\"").unwrap();
        assert_eq!(&*text, "\u{fffd}[31mred");
    }
}
