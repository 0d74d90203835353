// SPDX-License-Identifier: Apache-2.0 OR BSD-3-Clause

//! The two kinds of interrupt controller that a guest may have: which one follows from the host's own.

use super::layout::{MESSAGE_SPIS, SPIS};
use super::v2m;
use crate::config::MOST_CPUS;
use crate::kvm::irq::Delivery;

/// A version of the GIC.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum GicVersion {
    /// GICv2, as GIC-400, with a frame of GICv2m for messages (Server Base System Architecture, appendix E).
    V2,
    /// GICv3 with an ITS.
    V3,
}

impl GicVersion {
    /// CPUs that it serves (Linux, include/linux/irqchip/arm-gic.h and virt/kvm/arm/vgic, `VGIC_V2_MAX_CPUS`).
    #[must_use]
    pub fn most_cpus(self) -> u8 {
        match self {
            Self::V2 => 8,
            Self::V3 => MOST_CPUS,
        }
    }

    /// Shared interrupts that it has: the wired ones, and with GICv2m those that messages become.
    #[must_use]
    pub fn spis(self) -> u32 {
        match self {
            Self::V2 => SPIS + MESSAGE_SPIS,
            Self::V3 => SPIS,
        }
    }

    /// What becomes of the message `data` to `address` from `device`, its requester id in the guest.
    #[must_use]
    pub fn delivery(self, address: u64, data: u32, device: u16) -> Delivery {
        match (self, v2m::pin(address, data)) {
            // The ITS knows a device by its requester id (`msi-map` in the device tree).
            (Self::V3, _) => Delivery::From(device.into()),
            (Self::V2, Some(pin)) => Delivery::Pin(pin),
            (Self::V2, None) => Delivery::Nowhere,
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::arch::aarch64::layout::PRIVATE_INTERRUPTS;

    #[test]
    fn kvm_accepts_the_number_of_interrupts() {
        // Linux, arch/arm64/kvm/vgic/vgic-kvm-device.c, KVM_DEV_ARM_VGIC_GRP_NR_IRQS.
        for version in [GicVersion::V2, GicVersion::V3] {
            let all = version.spis() + PRIVATE_INTERRUPTS;
            assert!(
                all.is_multiple_of(32) && (64..=1024).contains(&all),
                "{all}"
            );
            // Those above are reserved.
            assert!(all <= 1020);
        }
    }

    #[test]
    fn messages_are_pins_of_a_gicv2_and_go_to_the_its_of_a_gicv3() {
        let doorbell = v2m::DOORBELL;
        let v2 = |address, data| GicVersion::V2.delivery(address, data, 8);
        assert_eq!(v2(doorbell, 64), Delivery::Pin(32));
        assert_eq!(v2(doorbell, 63), Delivery::Nowhere);
        assert_eq!(v2(doorbell + 4, 64), Delivery::Nowhere);
        assert_eq!(GicVersion::V3.delivery(doorbell, 64, 8), Delivery::From(8));
    }

    #[test]
    fn a_gicv2_serves_8_cpus() {
        assert_eq!(GicVersion::V2.most_cpus(), 8);
        assert_eq!(GicVersion::V3.most_cpus(), MOST_CPUS);
    }
}
