//! Cores and capabilities of this process.

use caps::{CapSet, Capability, CapsHashSet};
use rustix::thread::{CpuSet, sched_getaffinity, sched_setaffinity};

/// What a server keeps for a re-bind of its queues.
const KEPT: [Capability; 3] = [Capability::CAP_NET_RAW, Capability::CAP_NET_ADMIN, Capability::CAP_BPF];

/// Gives up every capability of the calling thread but NET_RAW, NET_ADMIN and BPF, for good where it is allowed to.
/// Threads that it starts from now on have no more. A thread without capabilities has nothing to give up.
///
/// # Errors
/// The kernel's own; what is held then is what was held before.
pub(crate) fn drop_capabilities() -> Result<(), caps::errors::CapsError> {
    let permitted = caps::read(None, CapSet::Permitted)?;
    if permitted.is_empty() {
        return Ok(());
    }
    // The bounding set first, as long as CAP_SETPCAP is there: it is what an exec could win back.
    if caps::has_cap(None, CapSet::Effective, Capability::CAP_SETPCAP)? {
        for capability in caps::all().into_iter().filter(|c| !KEPT.contains(c)) {
            if caps::has_cap(None, CapSet::Bounding, capability)? {
                caps::drop(None, CapSet::Bounding, capability)?;
            }
        }
    }
    let kept: CapsHashSet = KEPT.into_iter().filter(|c| permitted.contains(c)).collect();
    caps::set(None, CapSet::Inheritable, &CapsHashSet::new())?;
    caps::set(None, CapSet::Effective, &kept)?;
    caps::set(None, CapSet::Permitted, &kept)
}

/// The same, for a thread whose main thread has warned, or will, of what goes wrong.
pub(crate) fn drop_quietly() {
    let _ = drop_capabilities();
}

/// Whether the calling thread has `capability` (in its own user namespace).
pub(crate) fn has(capability: Capability) -> bool {
    caps::has_cap(None, CapSet::Effective, capability).unwrap_or(false)
}

/// The cores that this process may run on, the last one first: the first one is where most machines take their interrupts
/// and their housekeeping.
pub(crate) fn cores() -> Vec<usize> {
    let Ok(set) = sched_getaffinity(None) else { return Vec::new() };
    (0..CpuSet::MAX_CPU).rev().filter(|&core| set.is_set(core)).collect()
}

/// Keeps the calling thread on `cores`; none given: where it is. Cores that are not to be had are no reason to stop.
pub(crate) fn pin(cores: &[usize]) {
    if cores.is_empty() {
        return;
    }
    let mut set = CpuSet::new();
    cores.iter().for_each(|&core| set.set(core));
    if let Err(error) = sched_setaffinity(None, &set) {
        tracing::warn!("cannot pin a thread to {cores:?} ({error}); the scheduler places it");
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn capabilities_go_and_only_the_kept_stay() {
        // A thread of its own: capabilities belong to threads.
        let left = std::thread::spawn(|| {
            drop_capabilities().unwrap();
            drop_capabilities().unwrap();
            caps::read(None, CapSet::Permitted).unwrap()
        });
        let left = left.join().unwrap();
        assert!(left.iter().all(|c| KEPT.contains(c)), "{left:?}");
        let here = caps::read(None, CapSet::Permitted).unwrap();
        assert!(KEPT.iter().all(|c| here.contains(c) == left.contains(c)), "what is kept is what was there");
    }

    #[test]
    fn a_worker_stays_on_its_core() {
        let cores = cores();
        assert!(!cores.is_empty());
        let core = cores[0];
        std::thread::spawn(move || {
            pin(&[core]);
            assert_eq!(super::cores(), [core]);
        })
        .join()
        .unwrap();
    }
}
