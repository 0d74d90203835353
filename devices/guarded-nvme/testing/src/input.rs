// SPDX-License-Identifier: Apache-2.0 OR BSD-3-Clause

//! Choices made by bytes.

/// Bytes, then zeros.
#[derive(Clone, Debug)]
pub struct Input<'a>(&'a [u8]);

impl<'a> Input<'a> {
    /// Choices made by `bytes`.
    #[must_use]
    pub fn new(bytes: &'a [u8]) -> Self {
        Self(bytes)
    }

    /// Whether no byte is left.
    #[must_use]
    pub fn is_empty(&self) -> bool {
        self.0.is_empty()
    }

    /// The next byte.
    pub fn byte(&mut self) -> u8 {
        let (first, rest) = self.0.split_first().unwrap_or((&0, &[]));
        self.0 = rest;
        *first
    }

    /// The next two bytes.
    pub fn word16(&mut self) -> u16 {
        u16::from_le_bytes([self.byte(), self.byte()])
    }

    /// The next four bytes.
    pub fn word32(&mut self) -> u32 {
        u32::from(self.word16()) | u32::from(self.word16()) << 16
    }

    /// The next eight bytes.
    pub fn word64(&mut self) -> u64 {
        u64::from(self.word32()) | u64::from(self.word32()) << 32
    }

    /// A number below `end`, which is not 0.
    pub fn below(&mut self, end: u16) -> u16 {
        self.word16() % end
    }

    /// One of these.
    pub fn choose<T: Copy>(&mut self, from: &[T]) -> T {
        from[usize::from(self.byte()) % from.len()]
    }
}
