//! A scenario with parts taken away: what shrinking does, and what the command line can.

use super::Scenario;
use khamsin_drivers::sim::{PathConfig, Rings, Side, Spans};
use std::collections::BTreeSet;
use std::fmt;
use std::str::FromStr;

/// Faults that can be taken away, by the names of `--without`.
pub const FAULTS: &[&str] = &[
    "loss",
    "burst",
    "duplicate",
    "reorder",
    "corrupt",
    "jitter",
    "rate",
    "partition",
    "stall",
    "leap",
    "moves",
    "shards",
    "rx-ring",
    "tx-ring",
    "completion",
    "bursts",
    "frames",
    "offload",
    "delay",
    "impatience",
];

/// Frames that the path may harm: by who sent them, and how many that side had sent before.
#[derive(Clone, PartialEq, Eq, Debug, Default)]
pub struct Fates(pub BTreeSet<(bool, u64)>);

impl Fates {
    /// Whether a frame is one of them.
    pub fn name(&self, from: Side, index: u64) -> bool {
        self.0.contains(&(from == Side::Left, index))
    }
}

impl fmt::Display for Fates {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        if self.0.is_empty() {
            return f.write_str("none");
        }
        for (i, (server, index)) in self.0.iter().enumerate() {
            let comma = if i == 0 { "" } else { "," };
            write!(f, "{comma}{}{index}", if *server { 's' } else { 'p' })?;
        }
        Ok(())
    }
}

impl FromStr for Fates {
    type Err = String;

    fn from_str(text: &str) -> Result<Self, String> {
        if text == "none" {
            return Ok(Fates::default());
        }
        let one = |word: &str| {
            let (side, index) = word.split_at_checked(1)?;
            let server = match side {
                "s" => true,
                "p" => false,
                _ => return None,
            };
            Some((server, index.parse().ok()?))
        };
        let wrong = |word: &str| format!("{word:?} names no frame: s12 is the server's 13th, p0 its peers' first");
        text.split(',').map(|word| one(word).ok_or_else(|| wrong(word))).collect::<Result<_, _>>().map(Fates)
    }
}

/// What is taken away from a scenario.
#[derive(Clone, PartialEq, Eq, Debug, Default)]
pub struct Cuts {
    /// Faults, by the names in [`FAULTS`].
    pub without: BTreeSet<String>,
    /// Clients that stay, by number; `None`: all.
    pub clients: Option<BTreeSet<usize>>,
    /// Hostile peers that stay, by number; `None`: all.
    pub hostiles: Option<BTreeSet<usize>>,
    /// What clients send and ask for is divided by this; 0 and 1: it stays.
    pub divide: u64,
    /// Steps that each hostile peer takes at most.
    pub steps: Option<usize>,
    /// Frames that the path may harm; `None`: all.
    pub fates: Option<Fates>,
}

impl Cuts {
    /// The scenario that is left of `scenario`.
    pub fn apply(&self, mut scenario: Scenario) -> Scenario {
        for fault in &self.without {
            take_away(&mut scenario, fault);
        }
        let stays = |kept: &Option<BTreeSet<usize>>, number| kept.as_ref().is_none_or(|kept| kept.contains(&number));
        scenario.clients.retain(|client| stays(&self.clients, client.number));
        scenario.hostiles.retain(|hostile| stays(&self.hostiles, hostile.number));
        if self.divide > 1 {
            scenario.clients.iter_mut().for_each(|client| client.divide(self.divide));
        }
        if let Some(steps) = self.steps {
            scenario.hostiles.iter_mut().for_each(|hostile| hostile.steps = hostile.steps.min(steps));
        }
        scenario.fates = self.fates.clone();
        scenario
    }
}

impl fmt::Display for Cuts {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        let list = |numbers: &BTreeSet<usize>| match numbers.is_empty() {
            true => "none".to_owned(),
            false => numbers.iter().map(usize::to_string).collect::<Vec<_>>().join(","),
        };
        if !self.without.is_empty() {
            write!(f, " --without {}", self.without.iter().cloned().collect::<Vec<_>>().join(","))?;
        }
        if let Some(clients) = &self.clients {
            write!(f, " --clients {}", list(clients))?;
        }
        if let Some(hostiles) = &self.hostiles {
            write!(f, " --hostiles {}", list(hostiles))?;
        }
        if self.divide > 1 {
            write!(f, " --divide {}", self.divide)?;
        }
        if let Some(steps) = self.steps {
            write!(f, " --steps {steps}")?;
        }
        if let Some(fates) = &self.fates {
            write!(f, " --fates {fates}")?;
        }
        Ok(())
    }
}

fn take_away(scenario: &mut Scenario, fault: &str) {
    let mut paths = |change: &dyn Fn(&mut PathConfig)| {
        change(&mut scenario.down);
        change(&mut scenario.up);
    };
    match fault {
        "loss" => paths(&|path| path.loss_per_million = 0),
        "burst" => paths(&|path| path.burst_loss = None),
        "duplicate" => paths(&|path| path.duplicate_per_million = 0),
        "reorder" => paths(&|path| path.reorder_per_million = 0),
        "corrupt" => paths(&|path| path.corrupt_per_million = 0),
        "jitter" => paths(&|path| path.jitter_us = 0),
        "rate" => paths(&|path| path.rate_bits_per_s = 0),
        "partition" => paths(&|path| path.partitions.clear()),
        "delay" => paths(&|path| path.delay_us = 1_000),
        "stall" => scenario.stalls = Spans::default(),
        "leap" => scenario.leaps_us.clear(),
        "moves" => scenario.moves_us.clear(),
        "shards" => scenario.shards = 1,
        "rx-ring" => {
            let whole = Rings::default();
            let rings = &mut scenario.wire.rings;
            (rings.rx_frames, rings.starved, rings.rx_burst_max) = (whole.rx_frames, whole.starved, whole.rx_burst_max);
        }
        "tx-ring" => scenario.wire.rings.tx_full = Spans::default(),
        "completion" => scenario.wire.rings.completion_us = 0,
        "bursts" => scenario.wire.rings.tx_burst_max = usize::MAX,
        "frames" => scenario.wire.tx_frames = 4096,
        "offload" => (scenario.wire.tx_checksum, scenario.wire.tx_segment_max) = (false, 0),
        "impatience" => scenario.impatient = false,
        _ => {}
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn cuts_say_what_the_command_line_reads() {
        let fates: Fates = "s12,p0,s3".parse().unwrap();
        assert!(fates.name(Side::Left, 12) && fates.name(Side::Right, 0) && !fates.name(Side::Right, 12));
        assert_eq!(fates.to_string().parse::<Fates>().unwrap(), fates);
        assert_eq!("none".parse::<Fates>().unwrap(), Fates::default());
        assert!("x1".parse::<Fates>().is_err() && "s".parse::<Fates>().is_err() && "".parse::<Fates>().is_err());
        let cuts = Cuts { without: ["loss".to_owned()].into(), divide: 4, fates: Some(fates), ..Cuts::default() };
        assert_eq!(cuts.to_string(), " --without loss --divide 4 --fates p0,s3,s12");
    }

    #[test]
    fn everything_can_be_taken_away() {
        let cuts = Cuts {
            without: FAULTS.iter().map(|fault| (*fault).to_owned()).collect(),
            hostiles: Some(BTreeSet::new()),
            clients: Some([0].into()),
            ..Cuts::default()
        };
        for seed in 0..200 {
            let left = cuts.apply(Scenario::new(seed));
            let bare = PathConfig { delay_us: 1_000, queue: left.up.queue, ..PathConfig::default() };
            let bare = PathConfig { duplicate_us: left.up.duplicate_us, reorder_us: left.up.reorder_us, ..bare };
            assert_eq!(left.up, bare, "seed {seed}");
            assert!(left.stalls.is_empty() && left.leaps_us.is_empty() && left.moves_us.is_empty());
            let retry = Rings { tx_retry_us: left.wire.rings.tx_retry_us, ..Rings::default() };
            assert_eq!(left.wire.rings, retry);
            assert!(left.hostiles.is_empty() && left.clients.len() == 1 && left.shards == 1);
        }
    }
}
