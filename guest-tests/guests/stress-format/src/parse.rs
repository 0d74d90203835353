// SPDX-License-Identifier: Apache-2.0 OR BSD-3-Clause

//! `key=value` fields.

/// The fields of a record, as text.
pub struct Fields<'a>(pub &'a str);

impl<'a> Fields<'a> {
    /// The value of `key`, up to the next space.
    pub fn word(&self, key: &str) -> Option<&'a str> {
        self.0
            .split(' ')
            .filter_map(|field| field.split_once('='))
            .find_map(|(found, value)| (found == key).then_some(value))
    }

    /// The value of `key`, decimal, or hexadecimal behind 0x.
    pub fn number(&self, key: &str) -> Option<u64> {
        let word = self.word(key)?;
        match word.strip_prefix("0x") {
            Some(digits) => u64::from_str_radix(digits, 16).ok(),
            None => word.parse().ok(),
        }
    }

    /// The value of `key`, up to the end.
    pub fn rest(&self, key: &str) -> Option<&'a str> {
        let mut rest = self.0;
        loop {
            if let Some((found, value)) = rest.split_once('=')
                && found == key
            {
                return Some(value);
            }
            (_, rest) = rest.split_once(' ')?;
        }
    }

    /// The value of `key`, by its name in `names`.
    pub fn one_of<T: Copy>(&self, key: &str, names: &[(&str, T)]) -> Option<T> {
        value_of(names, self.word(key)?)
    }
}

/// What `word` names in `names`.
pub fn value_of<T: Copy>(names: &[(&str, T)], word: &str) -> Option<T> {
    names
        .iter()
        .find_map(|(name, value)| (*name == word).then_some(*value))
}

/// The name of `value` in `names`, which has all of them.
pub fn name_of<'a, T: PartialEq>(names: &[(&'a str, T)], value: &T) -> &'a str {
    names
        .iter()
        .find_map(|(name, known)| (known == value).then_some(*name))
        .unwrap_or("unknown")
}
