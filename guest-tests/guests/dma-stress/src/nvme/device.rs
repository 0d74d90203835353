// SPDX-License-Identifier: Apache-2.0 OR BSD-3-Clause

//! Enabling, disabling and shutting down (Base 1.4 §7.6, 2.0 §3.5 and §3.6).

use super::access::Clock;
use super::cmb::Cmb;
use super::error::{NvmeError, Waiting};
use super::registers::{
    ACQ, AQA, ASQ, CAP, CC, CC_CSS_ALL, CC_EN, CC_ENTRY_SIZES, CC_SHN, CC_SHN_NORMAL, CMBLOC,
    CMBMSC, CMBMSC_CMSE, CMBMSC_CRE, CMBSTS, CMBSTS_CBAI, CMBSZ, CSTS, CSTS_CFS, CSTS_RDY,
    CSTS_SHST, CSTS_SHST_COMPLETE, Capabilities, VS,
};
use crate::registers::Registers;

/// How long a shutdown may take. RTD3E, the controller's own estimate, is not to be trusted.
const SHUTDOWN_MS: u64 = 30_000;

/// The registers and the clock. Dropping it disables the controller.
#[derive(Debug)]
pub(super) struct Device<R: Registers, C: Clock> {
    pub(super) registers: R,
    clock: C,
    pub(super) capabilities: Capabilities,
    state: State,
}

/// What is known of CC.EN and CSTS.RDY.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
enum State {
    /// Enabled, or never looked at.
    Enabled,
    /// Disabled, but not confirmed.
    Stuck,
    Disabled,
}

impl<R: Registers, C: Clock> Device<R, C> {
    /// Looks at a controller, which may be in any state, and disables it. BAR0 has `size`
    /// bytes; `last_queue` is the last queue pair to be used.
    pub(super) fn open(
        registers: R,
        size: u64,
        clock: C,
        last_queue: u16,
    ) -> Result<Self, NvmeError> {
        let smallest = Capabilities(0).bar_bytes(last_queue);
        if size < smallest {
            return Err(NvmeError::BarTooSmall {
                size,
                need: smallest,
                stride: 0,
            });
        }
        if registers.read32(VS) == u32::MAX {
            return Err(NvmeError::Gone { register: VS });
        }
        let capabilities = Capabilities(registers.read64(CAP));
        let need = capabilities.bar_bytes(last_queue);
        if size < need {
            return Err(NvmeError::BarTooSmall {
                size,
                need,
                stride: capabilities.dstrd(),
            });
        }
        if capabilities.mqes() == 0 {
            return Err(NvmeError::QueuesTooShort);
        }
        if capabilities.mpsmin() != 0 {
            return Err(NvmeError::PageSize {
                mpsmin: capabilities.mpsmin(),
            });
        }
        let mut device = Self {
            registers,
            clock,
            capabilities,
            state: State::Enabled,
        };
        device.command_set()?;
        device.disable()?;
        Ok(device)
    }

    /// CC.CSS for the NVM command set (Base 2.0 §3.1.3.5).
    fn command_set(&self) -> Result<u32, NvmeError> {
        match self.capabilities.css() {
            css if css & 1 != 0 => Ok(0),
            css if css & 1 << 6 != 0 => Ok(CC_CSS_ALL),
            css => Err(NvmeError::NoNvmCommandSet { css }),
        }
    }

    /// Enables the controller with an admin queue pair of `entries` entries at these addresses.
    pub(super) fn enable(
        &mut self,
        entries: u16,
        submissions: u64,
        completions: u64,
    ) -> Result<(), NvmeError> {
        let css = self.command_set()?;
        let last = u32::from(entries - 1); // 0's based
        self.registers.write32(AQA, last << 16 | last);
        self.registers.write64(ASQ, submissions);
        self.registers.write64(ACQ, completions);
        self.state = State::Enabled;
        self.registers.write32(CC, CC_ENTRY_SIZES | css | CC_EN);
        let ms = self.capabilities.ready_ms();
        self.wait(Waiting::Ready, ms, |csts| {
            if csts & CSTS_CFS != 0 {
                return Err(NvmeError::Fatal { csts });
            }
            Ok(csts & CSTS_RDY != 0)
        })
    }

    /// Resets the controller: after it, it does no DMA.
    pub(super) fn disable(&mut self) -> Result<(), NvmeError> {
        self.state = State::Stuck;
        let ms = self.capabilities.ready_ms();
        let cc = self.registers.read32(CC);
        if cc & CC_EN != 0 {
            // EN must not go back to 0 before RDY has followed it to 1 (Base 1.4 §3.1.5); a
            // controller that does not get there is disabled nevertheless.
            match self.wait(Waiting::Ready, ms, |csts| {
                Ok(csts & (CSTS_RDY | CSTS_CFS) != 0)
            }) {
                Ok(()) | Err(NvmeError::Timeout { .. }) => {}
                Err(gone) => return Err(gone),
            }
            self.registers.write32(CC, cc & !(CC_EN | CC_SHN));
        }
        self.wait(Waiting::Disabled, ms, |csts| Ok(csts & CSTS_RDY == 0))?;
        self.state = State::Disabled;
        Ok(())
    }

    /// Prepares the controller for power-off, and disables it.
    pub(super) fn shut_down(&mut self) -> Result<(), NvmeError> {
        let cc = self.registers.read32(CC);
        self.registers.write32(CC, cc & !CC_SHN | CC_SHN_NORMAL);
        let complete = self.wait(Waiting::ShutDown, SHUTDOWN_MS, |csts| {
            if csts & CSTS_CFS != 0 {
                return Err(NvmeError::Fatal { csts });
            }
            Ok(csts & CSTS_SHST == CSTS_SHST_COMPLETE)
        });
        self.disable()?;
        complete
    }

    /// Whether the controller has confirmed that it is disabled: it does no DMA.
    pub(super) const fn is_disabled(&self) -> bool {
        matches!(self.state, State::Disabled)
    }

    /// Whether the controller supports Identify's list of active namespaces (since 1.1).
    pub(super) fn has_active_list(&self) -> bool {
        self.registers.read32(VS) >= 0x0001_0100
    }

    /// Asks CSTS whether the controller is still there and ready.
    pub(super) fn check(&self) -> Result<(), NvmeError> {
        match self.csts()? {
            csts if csts & CSTS_CFS != 0 => Err(NvmeError::Fatal { csts }),
            csts if csts & CSTS_RDY == 0 => Err(NvmeError::NotReady { csts }),
            _ => Ok(()),
        }
    }

    /// Calls `ready` with CSTS until it returns true, for `ms` milliseconds at most and once at
    /// least.
    pub(super) fn wait(
        &self,
        waiting: Waiting,
        ms: u64,
        mut ready: impl FnMut(u32) -> Result<bool, NvmeError>,
    ) -> Result<(), NvmeError> {
        let start = self.clock.ticks();
        let limit = ms.saturating_mul(self.clock.ticks_per_ms());
        loop {
            // The time first: after the last moment there is one more look.
            let over = self.clock.ticks().wrapping_sub(start) >= limit;
            let csts = self.csts()?;
            if ready(csts)? {
                return Ok(());
            }
            if over {
                return Err(NvmeError::Timeout { waiting, ms, csts });
            }
            core::hint::spin_loop();
        }
    }

    fn csts(&self) -> Result<u32, NvmeError> {
        match self.registers.read32(CSTS) {
            u32::MAX => Err(NvmeError::Gone { register: CSTS }),
            csts => Ok(csts),
        }
    }

    /// Looks for a controller memory buffer (Base 1.4 §3.1.16). First it takes back the address
    /// that a driver may have given it before and that a reset may have left: the controller
    /// would take RAM at that address for its own. Only while the controller is disabled.
    pub(super) fn find_cmb(&self) -> Result<Option<Cmb>, NvmeError> {
        if self.capabilities.cmbs() {
            self.registers.write64(CMBMSC, 0);
            self.registers.write64(CMBMSC, CMBMSC_CRE);
        }
        Cmb::decode(self.registers.read32(CMBLOC), self.registers.read32(CMBSZ))
    }

    /// Has the controller answer for the `bytes` bytes from `address` on (CMBMSC.CBA). Controllers
    /// without CMBMSC use the address of their BAR.
    pub(super) fn place_cmb(&self, address: u64, bytes: u64) -> Result<(), NvmeError> {
        let refused = NvmeError::CmbAddress { address };
        if !address.is_multiple_of(4096) || address.checked_add(bytes).is_none() {
            return Err(refused);
        }
        if !self.capabilities.cmbs() {
            return Ok(());
        }
        self.registers
            .write64(CMBMSC, address | CMBMSC_CMSE | CMBMSC_CRE);
        match self.registers.read32(CMBSTS) & CMBSTS_CBAI {
            0 => Ok(()),
            _ => {
                self.registers.write64(CMBMSC, CMBMSC_CRE);
                Err(refused)
            }
        }
    }
}

impl<R: Registers, C: Clock> Drop for Device<R, C> {
    fn drop(&mut self) {
        if self.state == State::Enabled {
            // It can be reported nowhere; the queues' memory stays allocated for this case.
            let _ = self.disable();
        }
        if self.capabilities.cmbs() {
            self.registers.write64(CMBMSC, 0);
        }
    }
}
