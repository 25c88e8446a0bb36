//! Connections by number, and the units and stores that pass from one to the next.

use crate::aligned::{Aligned, addresses};
use crate::connection::Parts;
use crate::limits::Limits;
use crate::machine::Arena;
use crate::prefetch;
use crate::store::Store;
use core::ops::Range;

/// A bounded slab. A number is used again after its connection is gone.
pub(super) struct Slab<T> {
    slots: Vec<Aligned<Option<T>>>,
    free: Vec<u32>,
    capacity: usize,
    arena: Arena,
    parts: Vec<Parts>,
}

impl<T> Slab<T> {
    pub(super) fn new(limits: &Limits) -> Self {
        Slab {
            slots: Vec::with_capacity(limits.units()),
            free: Vec::with_capacity(limits.units()),
            capacity: limits.units(),
            arena: Arena::new(limits),
            parts: Vec::with_capacity(limits.units()),
        }
    }

    /// Bytes of an entry.
    pub(super) const BYTES_EACH: usize = size_of::<Aligned<Option<T>>>();

    /// Where the entries lie, or will.
    pub(super) fn addresses(&self) -> Range<usize> {
        addresses(&self.slots)
    }

    pub(super) fn len(&self) -> usize {
        self.slots.len() - self.free.len()
    }

    /// Numbers that were ever in use are below this.
    pub(super) fn span(&self) -> u32 {
        self.slots.len() as u32
    }

    pub(super) fn is_full(&self) -> bool {
        self.len() == self.capacity
    }

    /// A unit and a store for a new connection, warm ones first; `None` when all are in use.
    pub(super) fn take_parts(&mut self) -> Option<Parts> {
        self.parts.pop().or_else(|| Some((self.arena.unit()?, Store::new())))
    }

    pub(super) fn give_parts(&mut self, parts: Parts) {
        self.parts.push(parts);
    }

    /// Adds the entry that `make` makes where it is to stay, for a connection is long enough for each copy of it to be felt, and
    /// returns its number. The caller has checked [`is_full`](Self::is_full).
    #[inline(always)]
    pub(super) fn insert_with(&mut self, make: impl FnOnce() -> T) -> u32 {
        let id = self.free.pop().unwrap_or_else(|| {
            debug_assert!(self.slots.len() < self.capacity);
            self.slots.push(Aligned(None));
            (self.slots.len() - 1) as u32
        });
        let slot = &mut self.slots[id as usize].0;
        debug_assert!(slot.is_none(), "a number that is free names nobody");
        *slot = Some(make());
        id
    }

    pub(super) fn remove(&mut self, id: u32) -> Option<T> {
        let entry = self.slots.get_mut(id as usize)?.take()?;
        self.free.push(id);
        Some(entry)
    }

    #[inline]
    pub(super) fn get(&self, id: u32) -> Option<&T> {
        self.slots.get(id as usize)?.as_ref()
    }

    /// Asks for the first line of an entry, and so for the page it lies in: a walk through the page tables is what a table of
    /// millions waits for first. Nobody looks whether there is an entry: that would be a miss to wait for, too.
    #[inline]
    pub(super) fn prefetch_first_line(&self, id: u32) {
        if let Some(slot) = self.slots.get(id as usize) {
            prefetch::line(core::ptr::from_ref(slot) as usize);
        }
    }

    /// Asks for all of an entry.
    #[inline]
    pub(super) fn prefetch(&self, id: u32) {
        if let Some(slot) = self.slots.get(id as usize) {
            prefetch::value(slot);
        }
    }

    #[inline]
    pub(super) fn get_mut(&mut self, id: u32) -> Option<&mut T> {
        self.slots.get_mut(id as usize)?.as_mut()
    }

    pub(super) fn with(&mut self, id: u32, f: impl FnOnce(&mut T)) {
        if let Some(entry) = self.get_mut(id) {
            f(entry);
        }
    }

    /// The number behind `id`, in a circle.
    pub(super) fn after(&self, id: u32) -> u32 {
        if id as usize + 1 < self.slots.len() { id + 1 } else { 0 }
    }

    /// The numbers in use. Allocates: for drain and the like.
    pub(super) fn ids(&self) -> Vec<u32> {
        (0..self.slots.len() as u32).filter(|&id| self.slots[id as usize].is_some()).collect()
    }
}
