//! Asks for a cache line ahead of its use. The only file of this crate with `unsafe` in it.
#![allow(unsafe_code)]

/// Bytes of a cache line on every machine this runs on today.
pub(crate) const LINE: usize = 64;

/// Asks for the cache line at `address`. Any number will do: nothing is read, nothing faults.
#[inline(always)]
pub(crate) fn line(address: usize) {
    #[cfg(target_arch = "x86_64")]
    // SAFETY: `_mm_prefetch` is a hint. It is part of SSE, which every x86_64 has; it does not access memory as the
    // language knows it, and an address that is not mapped is ignored (Intel SDM, PREFETCHh).
    unsafe {
        core::arch::x86_64::_mm_prefetch::<{ core::arch::x86_64::_MM_HINT_T0 }>(address as *const i8);
    }
    #[cfg(not(target_arch = "x86_64"))]
    let _ = address;
}

/// Asks for all lines of `value`.
#[inline(always)]
pub(crate) fn value<T>(value: &T) {
    let start = core::ptr::from_ref(value) as usize;
    let mut at = start & !(LINE - 1);
    while at < start + size_of::<T>() {
        line(at);
        at += LINE;
    }
}
