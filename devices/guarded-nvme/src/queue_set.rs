// SPDX-License-Identifier: Apache-2.0 OR BSD-3-Clause

//! Sets of I/O queues.

/// Most I/O queues of each kind.
pub const MAX_QUEUES: u16 = 127;

/// A set of I/O queues, by identifier: 1 to [`MAX_QUEUES`].
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub struct QueueSet(u128);

impl QueueSet {
    const fn bit(id: u16) -> u128 {
        if id == 0 || id > MAX_QUEUES {
            0
        } else {
            1 << id
        }
    }

    /// Adds a queue. There is none with an identifier out of range.
    pub fn insert(&mut self, id: u16) {
        self.0 |= Self::bit(id);
    }

    /// Removes a queue.
    pub fn remove(&mut self, id: u16) {
        self.0 &= !Self::bit(id);
    }

    /// Whether a queue is in it.
    #[must_use]
    pub const fn contains(self, id: u16) -> bool {
        self.0 & Self::bit(id) != 0
    }

    /// Whether no queue is in it.
    #[must_use]
    pub const fn is_empty(self) -> bool {
        self.0 == 0
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn only_identifiers_of_io_queues_are_kept() {
        let mut set = QueueSet::default();
        for id in [0, 128, u16::MAX] {
            set.insert(id);
            assert!(!set.contains(id));
        }
        assert!(set.is_empty());
        set.insert(1);
        set.insert(MAX_QUEUES);
        assert!(set.contains(1) && set.contains(MAX_QUEUES) && !set.contains(2));
        set.remove(1);
        set.remove(MAX_QUEUES);
        assert!(set.is_empty());
    }
}
