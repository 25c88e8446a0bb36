//! What a kernel's TCP saw of reordering and of what was sent again.

use anyhow::{Context, Result};
use serde_json::{Map, Value};
use std::collections::BTreeMap;
use std::fs;

/// Of all that the kernel counts: dropped because an older timestamp came behind a newer one, held behind a hole, reported
/// as received twice (before and behind what was acknowledged), and sent again.
const NAMES: [&str; 8] = [
    "PAWSEstab",
    "TCPOFOQueue",
    "TCPDSACKOldSent",
    "TCPDSACKOfoSent",
    "TCPFastRetrans",
    "TCPTimeouts",
    "TCPLossProbes",
    "TCPSACKReorder",
];

/// Counters of the network namespace that a thread is in (`TcpExt` of `nstat`).
#[derive(Clone, Debug, Default, PartialEq, Eq)]
pub(crate) struct Counts(BTreeMap<&'static str, u64>);

impl Counts {
    /// As they stand in this thread's namespace.
    ///
    /// # Errors
    /// The kernel does not tell.
    pub(crate) fn read() -> Result<Counts> {
        // Not /proc/net: that is the namespace of the process, not of the thread.
        let text = fs::read_to_string("/proc/thread-self/net/netstat").context("the kernel's TCP counters")?;
        Ok(Counts::parse(&text))
    }

    /// Lines come in pairs, names over figures.
    fn parse(text: &str) -> Counts {
        let mut lines = text.lines().filter_map(|line| line.strip_prefix("TcpExt: "));
        let (names, figures) = (lines.next().unwrap_or(""), lines.next().unwrap_or(""));
        let known = |name: &str| NAMES.into_iter().find(|known| *known == name);
        let pairs = names.split(' ').zip(figures.split(' '));
        Counts(pairs.filter_map(|(name, figure)| Some((known(name)?, figure.parse().ok()?))).collect())
    }

    /// What was added since `before`.
    pub(crate) fn since(&self, before: &Counts) -> Counts {
        let old = |name: &str| before.0.get(name).copied().unwrap_or(0);
        Counts(self.0.iter().map(|(name, figure)| (*name, figure.saturating_sub(old(name)))).collect())
    }

    pub(crate) fn json(&self) -> Value {
        Value::Object(
            self.0.iter().map(|(name, figure)| ((*name).to_owned(), Value::from(*figure))).collect::<Map<_, _>>(),
        )
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn counters_are_found_by_name_and_counted_from_before() {
        let counts = |paws: u32| {
            Counts::parse(&format!(
                "TcpExt: SyncookiesSent PAWSEstab TCPOFOQueue\nTcpExt: 9 {paws} 3\nIpExt: A\nIpExt: 7\n"
            ))
        };
        assert_eq!(counts(12).since(&counts(2)).json(), serde_json::json!({"PAWSEstab": 10, "TCPOFOQueue": 0}));
    }

    #[test]
    fn this_kernel_has_them_all() {
        assert_eq!(Counts::read().unwrap().0.len(), NAMES.len());
    }
}
