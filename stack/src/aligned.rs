//! Values that begin a cache line of their own.

use core::ops::{Deref, DerefMut, Range};

/// A value that shares no cache line with its neighbours in an array, and is spread over no more lines than it must.
#[repr(align(64))]
#[derive(Clone, Copy)]
pub(crate) struct Aligned<T>(pub(crate) T);

impl<T> Deref for Aligned<T> {
    type Target = T;

    #[inline(always)]
    fn deref(&self) -> &T {
        &self.0
    }
}

impl<T> DerefMut for Aligned<T> {
    #[inline(always)]
    fn deref_mut(&mut self) -> &mut T {
        &mut self.0
    }
}

/// The addresses of everything that fits `table`, used or not.
pub(crate) fn addresses<T>(table: &Vec<T>) -> Range<usize> {
    let start = table.as_ptr() as usize;
    start..start + table.capacity() * size_of::<T>()
}

const _: () = assert!(align_of::<Aligned<u8>>() == crate::prefetch::LINE);
