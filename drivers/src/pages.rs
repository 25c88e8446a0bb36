//! What kind of pages memory has. Opens `unsafe` for one system call: advice to the kernel, by address.
#![allow(unsafe_code)]

use core::ops::Range;
use rustix::io::Errno;
use rustix::mm::{Advice, madvise};

/// Bytes of a huge page on x86_64 and on arm64 with pages of 4 KiB.
const HUGE: usize = 2 << 20;

/// Asks for transparent huge pages for those addresses of `range` that can have them: whole ones of 2 MiB. Memory that is used
/// at random then misses the TLB one time in 512. A page becomes resident as a whole at its first use: for tables that fill
/// up. Says how many bytes that may be; 0 where the kernel has none to give (`/sys/kernel/mm/transparent_hugepage/enabled` says
/// `never`), and everything is as it was.
pub fn ask_for_huge(range: Range<usize>) -> usize {
    let start = range.start.next_multiple_of(HUGE);
    let end = range.end / HUGE * HUGE;
    if start >= end {
        return 0;
    }
    // SAFETY: `MADV_HUGEPAGE` sets a flag of the mapping and changes neither what memory holds nor whether it may be accessed
    // (madvise(2)), so that no value of the program, whoever owns it, is any other afterwards; of addresses that are not
    // mapped it says ENOMEM. The pointer is not used to access anything.
    match unsafe { madvise(core::ptr::without_provenance_mut(start), end - start, Advice::LinuxHugepage) } {
        Ok(()) => end - start,
        // A kernel without them.
        Err(Errno::INVAL | Errno::NOMEM) => 0,
        Err(error) => {
            tracing::debug!("no huge pages for {} bytes: {error}", end - start);
            0
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use std::fs;

    /// Bytes of huge pages that this process has.
    fn huge_bytes() -> usize {
        let text = fs::read_to_string("/proc/self/smaps_rollup").unwrap();
        let line = text.lines().find(|l| l.starts_with("AnonHugePages:")).unwrap();
        line.split_whitespace().nth(1).unwrap().parse::<usize>().unwrap() * 1024
    }

    /// Huge pages that the kernel wanted to give, and had not.
    fn fallbacks() -> u64 {
        let text = fs::read_to_string("/proc/vmstat").unwrap();
        let line = text.lines().find_map(|l| l.strip_prefix("thp_fault_fallback "));
        line.map_or(0, |n| n.parse().unwrap())
    }

    #[test]
    fn memory_that_is_used_gets_huge_pages_and_keeps_what_it_holds() {
        // More than malloc ever takes from what was freed (32 MiB): pages that nobody has touched.
        let len = 24 * HUGE;
        let mut memory = vec![0u8; len];
        memory[1] = 7;
        let start = memory.as_ptr() as usize;
        let asked = ask_for_huge(start..start + len);
        if asked == 0 {
            println!("SKIPPED: this kernel gives no transparent huge pages");
            return;
        }
        assert_eq!(asked, 23 * HUGE, "the first and the last are cut");
        let (before, fallbacks_before) = (huge_bytes(), fallbacks());
        memory.iter_mut().skip(8 * HUGE).step_by(HUGE).for_each(|byte| *byte = 9);
        assert_eq!((memory[1], memory[8 * HUGE], memory[8 * HUGE + 1]), (7, 9, 0));
        let scattered = fallbacks() > fallbacks_before;
        assert!(scattered || huge_bytes() >= before + HUGE, "{} bytes of huge pages", huge_bytes());
        if scattered {
            println!("SKIPPED: this machine's memory is too scattered for huge pages");
        }
    }

    #[test]
    fn small_memory_and_no_memory_are_left_alone() {
        let memory = vec![0u8; HUGE / 2];
        let start = memory.as_ptr() as usize;
        assert_eq!(ask_for_huge(start..start + memory.len()), 0);
        assert_eq!(ask_for_huge(HUGE..4 * HUGE), 0, "nothing is mapped there");
        assert_eq!(ask_for_huge(0..0), 0);
    }
}
