// SPDX-License-Identifier: Apache-2.0 OR BSD-3-Clause

//! Reading config space.

use core::convert::Infallible;

/// Config space that can be read.
///
/// Where nothing responds, reads give ones (PCI Local Bus Specification 3.0, section 6.1).
pub trait ConfigRead {
    /// Why a read failed.
    type Error;

    /// Two bytes at an even `offset`.
    ///
    /// # Errors
    /// If they cannot be read.
    fn read_u16(&mut self, offset: u16) -> Result<u16, Self::Error>;

    /// Four bytes at an `offset` that is a multiple of 4.
    ///
    /// # Errors
    /// If they cannot be read.
    fn read_u32(&mut self, offset: u16) -> Result<u32, Self::Error> {
        let low = u32::from(self.read_u16(offset)?);
        let high = u32::from(self.read_u16(offset | 2)?);
        Ok(low | high << 16)
    }
}

/// Bytes that were read before; behind their end nothing responds.
impl ConfigRead for &[u8] {
    type Error = Infallible;

    fn read_u16(&mut self, offset: u16) -> Result<u16, Infallible> {
        Ok(word(self, offset).unwrap_or(u16::MAX))
    }
}

/// Dwords that were read before; behind their end nothing responds.
impl ConfigRead for &[u32] {
    type Error = Infallible;

    fn read_u16(&mut self, offset: u16) -> Result<u16, Infallible> {
        let Ok(dword) = self.read_u32(offset & !3);
        Ok(half(dword, offset))
    }

    fn read_u32(&mut self, offset: u16) -> Result<u32, Infallible> {
        let dword = self.get(usize::from(offset / 4));
        Ok(dword.copied().unwrap_or(u32::MAX))
    }
}

/// The two bytes at `offset` of `config`; `None` unless both are there.
#[must_use]
pub fn word(config: &[u8], offset: u16) -> Option<u16> {
    let bytes = config.get(usize::from(offset)..)?.first_chunk()?;
    Some(u16::from_le_bytes(*bytes))
}

/// A function that reads two bytes.
#[derive(Clone, Copy, Debug)]
pub struct Words<F>(pub F);

impl<F: FnMut(u16) -> Result<u16, E>, E> ConfigRead for Words<F> {
    type Error = E;

    fn read_u16(&mut self, offset: u16) -> Result<u16, E> {
        (self.0)(offset)
    }
}

/// A function that reads four bytes at a multiple of 4.
#[derive(Clone, Copy, Debug)]
pub struct Dwords<F>(pub F);

impl<F: FnMut(u16) -> Result<u32, E>, E> ConfigRead for Dwords<F> {
    type Error = E;

    fn read_u16(&mut self, offset: u16) -> Result<u16, E> {
        Ok(half(self.read_u32(offset & !3)?, offset))
    }

    fn read_u32(&mut self, offset: u16) -> Result<u32, E> {
        (self.0)(offset)
    }
}

/// The half of `dword` that the even `offset` is in.
fn half(dword: u32, offset: u16) -> u16 {
    let [low, second, third, high] = dword.to_le_bytes();
    u16::from_le_bytes(match offset & 2 {
        0 => [low, second],
        _ => [third, high],
    })
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn all_kinds_read_the_same() {
        let bytes = [0x11, 0x22, 0x33, 0x44, 0x55, 0x66, 0x77, 0x88];
        let dwords = [0x4433_2211, 0x8877_6655];
        let mut by_words = Words(|at| word(&bytes, at).ok_or(at));
        let mut by_dwords = Dwords(|at: u16| dwords.get(usize::from(at / 4)).copied().ok_or(at));
        for at in (0..8).step_by(2) {
            let Ok(expected) = (&bytes[..]).read_u16(at);
            assert_eq!(expected.to_le_bytes(), bytes[at.into()..][..2]);
            assert_eq!(by_words.read_u16(at), Ok(expected));
            assert_eq!(by_dwords.read_u16(at), Ok(expected));
            assert_eq!((&dwords[..]).read_u16(at), Ok(expected));
        }
        for (at, expected) in [(0, dwords[0]), (4, dwords[1])] {
            assert_eq!((&bytes[..]).read_u32(at), Ok(expected));
            assert_eq!(by_words.read_u32(at), Ok(expected));
            assert_eq!(by_dwords.read_u32(at), Ok(expected));
            assert_eq!((&dwords[..]).read_u32(at), Ok(expected));
        }
        assert_eq!(by_words.read_u32(8), Err(8));
        assert_eq!(by_dwords.read_u16(10), Err(8));
    }

    #[test]
    fn nothing_responds_behind_the_end() {
        let bytes = [0; 7];
        assert_eq!((&bytes[..]).read_u32(0), Ok(0));
        assert_eq!((&bytes[..]).read_u32(4), Ok(0xffff_0000));
        assert_eq!((&bytes[..]).read_u16(u16::MAX), Ok(u16::MAX));
        assert_eq!((&[0_u32][..]).read_u16(4), Ok(u16::MAX));
        assert_eq!((&[0_u32][..]).read_u32(4), Ok(u32::MAX));
        assert_eq!((word(&bytes, 5), word(&bytes, 6)), (Some(0), None));
    }
}
