// SPDX-License-Identifier: Apache-2.0 OR BSD-3-Clause

//! Doorbells of the device.

use std::sync::atomic::{Ordering, fence};

use crate::device::Device;
use crate::guest::Doorbell;

/// Writes a doorbell of the device's, after all that was stored for it.
pub(crate) fn ring<D: Device>(device: &D, doorbell: Doorbell, value: u16) {
    fence(Ordering::Release);
    device.ring(doorbell, value);
}
