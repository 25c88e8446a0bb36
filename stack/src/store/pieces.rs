//! The pieces of one store, in the order of the stream.

use super::{BlockPool, Piece};
use core::ops::Index;
use std::collections::VecDeque;

/// A queue whose first piece lies in place: most answers are one piece, and need no list from the pool.
#[derive(Default)]
pub(super) struct Pieces {
    /// `None`: there are none.
    first: Option<Piece>,
    /// Those behind it; without capacity when there are none.
    more: VecDeque<Piece>,
}

impl Pieces {
    #[inline]
    pub(super) fn len(&self) -> usize {
        usize::from(self.first.is_some()) + self.more.len()
    }

    #[inline]
    pub(super) fn get(&self, index: usize) -> Option<&Piece> {
        if index == 0 { self.first.as_ref() } else { self.more.get(index - 1) }
    }

    #[inline]
    pub(super) fn back(&self) -> Option<&Piece> {
        self.more.back().or(self.first.as_ref())
    }

    #[inline]
    pub(super) fn push_back(&mut self, pool: &mut BlockPool, piece: Piece) {
        if self.first.is_none() {
            self.first = Some(piece);
            return;
        }
        if self.more.capacity() == 0 {
            self.more = pool.take_list();
        }
        self.more.push_back(piece);
    }

    /// Drops the first piece.
    #[inline]
    pub(super) fn pop_front(&mut self, pool: &mut BlockPool) {
        self.first = self.more.pop_front();
        if self.more.is_empty() && self.more.capacity() > 0 {
            pool.give_list(core::mem::take(&mut self.more));
        }
    }

    /// Room behind the first piece.
    #[cfg(test)]
    pub(super) fn capacity(&self) -> usize {
        self.more.capacity()
    }

    #[cfg(test)]
    pub(super) fn iter(&self) -> impl Iterator<Item = &Piece> {
        self.first.iter().chain(&self.more)
    }

    /// Which piece holds stream offset `offset`, which is kept.
    #[inline]
    pub(super) fn holding(&self, offset: u64) -> usize {
        self.more.partition_point(|piece| piece.at <= offset)
    }
}

impl Index<usize> for Pieces {
    type Output = Piece;

    #[inline]
    fn index(&self, index: usize) -> &Piece {
        self.get(index).expect("the caller knows that there are so many")
    }
}
