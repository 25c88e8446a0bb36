//! What kind of pages memory has. Opens `unsafe` for one system call: advice to the kernel, by address.
#![allow(unsafe_code)]

use core::ops::Range;
use rustix::io::Errno;
use rustix::mm::{Advice, madvise};

/// Bytes of a huge page on x86_64 and on arm64 with pages of 4 KiB.
const HUGE: usize = 2 << 20;

/// Asks for transparent huge pages for those addresses of `range` that can have them: whole ones of 2 MiB. Memory that is used
/// at random then misses the TLB one time in 512. A page becomes resident as a whole at its first use: for tables that fill
/// up. Says how many bytes that may be; 0 where the kernel was built without them. Where they are switched off
/// (`/sys/kernel/mm/transparent_hugepage/enabled` says `never`) it takes the advice, and everything stays as it was.
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

    /// Sums a field of `/proc/self/smaps` over what is mapped in `range`: of this memory and no other, so that what other tests
    /// take and give back meanwhile does not count.
    fn mapped(range: &Range<usize>, field: &str) -> usize {
        let text = fs::read_to_string("/proc/self/smaps").unwrap();
        let (mut inside, mut sum) = (false, 0);
        for line in text.lines() {
            let mut words = line.split_whitespace();
            let first = words.next().unwrap();
            if let Some((from, to)) = first.split_once('-') {
                let at = |hex| usize::from_str_radix(hex, 16).unwrap();
                inside = at(from) < range.end && at(to) > range.start;
            } else if inside && first.strip_suffix(':') == Some(field) {
                sum += words.next().unwrap().parse::<usize>().unwrap();
            }
        }
        sum
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
            println!("SKIPPED: this kernel has no transparent huge pages");
            return;
        }
        assert_eq!(asked, 23 * HUGE, "the first and the last are cut");
        let advised = start + HUGE..start + 23 * HUGE;
        // The advice is taken, and comes to nothing, where the machine or who started us has switched them off.
        let given = mapped(&advised, "THPeligible") > 0;
        let fallbacks_before = fallbacks();
        memory.iter_mut().skip(8 * HUGE).step_by(HUGE).for_each(|byte| *byte = 9);
        assert_eq!((memory[1], memory[8 * HUGE], memory[8 * HUGE + 1]), (7, 9, 0));
        if !given {
            println!("SKIPPED: this machine has transparent huge pages switched off");
            return;
        }
        let scattered = fallbacks() > fallbacks_before;
        let huge_kib = mapped(&advised, "AnonHugePages");
        assert!(scattered || huge_kib * 1024 >= HUGE, "{huge_kib} KiB of huge pages");
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
