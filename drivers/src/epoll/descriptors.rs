//! How many descriptors the process may hold.

use rustix::process::{Resource, Rlimit, getrlimit, setrlimit};

/// Raises this process's soft limit on open files to its hard limit. Returns the soft limit before and after;
/// `u64::MAX` stands for no limit. A kernel that refuses leaves it as it was.
pub fn raise_descriptor_limit() -> (u64, u64) {
    let limit = getrlimit(Resource::Nofile);
    let before = limit.current.unwrap_or(u64::MAX);
    let raised = Rlimit { current: limit.maximum, maximum: limit.maximum };
    if limit.current != limit.maximum && setrlimit(Resource::Nofile, raised).is_err() {
        return (before, before);
    }
    (before, limit.maximum.unwrap_or(u64::MAX))
}
