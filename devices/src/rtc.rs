// SPDX-License-Identifier: Apache-2.0 OR BSD-3-Clause

//! A real-time clock: Arm's PL031, which tells the host's time.

use std::fmt;
use std::sync::{Mutex, MutexGuard, PoisonError};

use vm_device::DeviceMmio;
use vm_device::bus::{MmioAddress, MmioAddressOffset};
use vm_superio::rtc_pl031;

/// The clock. Its registers have 32 bits; other accesses read as all-ones and do nothing.
pub struct Rtc(Mutex<rtc_pl031::Rtc<rtc_pl031::NoEvents>>);

impl fmt::Debug for Rtc {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.debug_struct("Rtc").finish_non_exhaustive()
    }
}

impl Default for Rtc {
    fn default() -> Self {
        Self::new()
    }
}

impl Rtc {
    /// A clock that has the host's time.
    #[must_use]
    pub fn new() -> Self {
        Self(Mutex::new(rtc_pl031::Rtc::new()))
    }

    fn lock(&self) -> MutexGuard<'_, rtc_pl031::Rtc<rtc_pl031::NoEvents>> {
        self.0.lock().unwrap_or_else(PoisonError::into_inner)
    }
}

impl DeviceMmio for Rtc {
    fn mmio_read(&self, _: MmioAddress, offset: MmioAddressOffset, data: &mut [u8]) {
        match (u16::try_from(offset), <&mut [u8; 4]>::try_from(&mut *data)) {
            (Ok(offset), Ok(word)) => self.lock().read(offset, word),
            _ => data.fill(0xff),
        }
    }

    fn mmio_write(&self, _: MmioAddress, offset: MmioAddressOffset, data: &[u8]) {
        if let (Ok(offset), Ok(word)) = (u16::try_from(offset), data.try_into()) {
            self.lock().write(offset, word);
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    const BASE: MmioAddress = MmioAddress(0);
    /// `RTCDR` and `RTCLR`, and the first of the identification registers (Arm DDI 0224C, section 3.3).
    const DATA: u64 = 0;
    const LOAD: u64 = 8;
    const PERIPHERAL_ID: u64 = 0xfe0;

    fn read(rtc: &Rtc, offset: u64) -> u32 {
        let mut data = [0xee; 4];
        rtc.mmio_read(BASE, offset, &mut data);
        u32::from_le_bytes(data)
    }

    #[test]
    fn it_is_a_pl031_that_can_be_set() {
        let rtc = Rtc::default();
        assert_eq!(read(&rtc, PERIPHERAL_ID), 0x31);
        rtc.mmio_write(BASE, LOAD, &0x1234_5678_u32.to_le_bytes());
        let set = read(&rtc, DATA);
        assert!((0x1234_5678..0x1234_6000).contains(&set), "{set:#x}");
    }

    #[test]
    fn odd_accesses_do_no_harm() {
        let rtc = Rtc::new();
        for len in [0, 1, 2, 3, 5, 8] {
            let mut data = vec![0; len];
            rtc.mmio_read(BASE, DATA, &mut data);
            assert!(data.iter().all(|byte| *byte == 0xff));
            rtc.mmio_write(BASE, LOAD, &data);
        }
        assert_eq!(read(&rtc, LOAD), 0, "nothing was written");
        for offset in [1, 0xfff, u64::from(u16::MAX), u64::MAX] {
            read(&rtc, offset);
        }
    }
}
