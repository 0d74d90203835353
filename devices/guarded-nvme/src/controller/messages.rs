// SPDX-License-Identifier: Apache-2.0 OR BSD-3-Clause

//! How much is logged of what a guest can cause.

/// Messages that are logged in the life of a controller.
const MOST: u16 = 200;

/// What is left of a controller's messages: a guest that enables its controller again and again must not fill the host's
/// disk.
#[derive(Clone, Copy, Debug)]
pub(crate) struct Messages {
    left: u16,
}

impl Default for Messages {
    fn default() -> Self {
        Self { left: MOST }
    }
}

impl Messages {
    /// Whether another message is logged. The last one says that it is.
    pub fn take(&mut self) -> bool {
        let has_one = self.left > 0;
        self.left = self.left.saturating_sub(1);
        if has_one && self.left == 0 {
            log::warn!("the guest's controller: this is the last message that is logged");
        }
        has_one
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn messages_come_to_an_end() {
        let mut messages = Messages::default();
        let logged = (0..1000).filter(|_| messages.take()).count();
        assert_eq!(logged, usize::from(MOST));
        assert!(!messages.take());
    }
}
