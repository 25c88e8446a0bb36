//! The command line.

use clap::Parser;
use khamsin_tools::sim::scenario::{Cuts, FAULTS, Fates};
use std::collections::BTreeSet;
use std::path::PathBuf;

const ABOUT: &str = "Runs khamsin's own TCP stack and applications against simulated networks and peers";

const LONG_ABOUT: &str = "\
Runs khamsin's own TCP stack and applications against simulated networks and peers, in virtual time.

One number, the seed, decides everything: the links and what they do to frames, the device's rings, the server's
clock, what well-behaved clients ask for and how hostile peers lie. The same seed is the same run, frame by frame. \
After each step the simulator checks what must always hold: bytes arrive once and in order or the connection ends
with a reason on both sides, nothing breaks an RFC on the wire, every wait ends, no frame, slot, timer or buffer is
left over when everybody has gone, and no counter lies.

Without --seed it runs many seeds and names the ones that fail, each with the command that repeats it.";

const EXAMPLES: &str = "\
Examples:
  khamsin-sim                              2,000 seeds on all cores
  khamsin-sim --seeds 200000 --from 5000   a long run
  khamsin-sim --seed 4711 -v               one seed, packet by packet
  khamsin-sim --seed 4711 --shrink --script 4711.pkt
                                           the least of seed 4711 that still fails, and a packet script of it
  khamsin-sim --seed 4711 --without loss,reorder --clients 0 --divide 8
                                           seed 4711 without these faults, with its first client only, an eighth of the work

Exit status: 0 if nothing was violated, 1 if something was or the run could not be made, 2 for a wrong command line.";

/// Seeds, faults and workloads in virtual time.
#[derive(Parser, Debug, Clone)]
#[command(name = "khamsin-sim", version, about = ABOUT, long_about = LONG_ABOUT, after_help = EXAMPLES, max_term_width = 110)]
pub(crate) struct Options {
    /// Run one seed, and say what it consists of
    #[arg(long, value_name = "SEED")]
    pub(crate) seed: Option<u64>,

    /// How many seeds to run
    #[arg(long, value_name = "N", default_value_t = 2_000, conflicts_with = "seed")]
    pub(crate) seeds: u64,

    /// The first of them
    #[arg(long, value_name = "SEED", default_value_t = 0, conflicts_with = "seed")]
    pub(crate) from: u64,

    /// How many to run at once [default: one for each core]
    #[arg(long, short, value_name = "N", conflicts_with = "seed")]
    pub(crate) jobs: Option<usize>,

    /// Stop after so many failures
    #[arg(long, value_name = "N", default_value_t = 20, conflicts_with = "seed")]
    pub(crate) failures: usize,

    /// Print every packet, in tcpdump's words, with its number and what becomes of it
    #[arg(long, short, requires = "seed")]
    pub(crate) verbose: bool,

    /// Take away what the failure does not need: faults, peers, work, then single packets
    #[arg(long, requires = "seed")]
    pub(crate) shrink: bool,

    /// Write the flow that something is wrong with, or else the last one, as a packet script (tests/scripts/README.md)
    #[arg(long, value_name = "FILE", requires = "seed")]
    pub(crate) script: Option<PathBuf>,

    /// Leave out these faults
    #[arg(long, value_name = "FAULT,...", value_delimiter = ',', requires = "seed", help_heading = "Parts of a seed",
          value_parser = clap::builder::PossibleValuesParser::new(FAULTS))]
    pub(crate) without: Vec<String>,

    /// Only these clients, by number; none: no client
    #[arg(long, value_name = "N,...", value_parser = numbers, requires = "seed", help_heading = "Parts of a seed")]
    pub(crate) clients: Option<Numbers>,

    /// Only these hostile peers, by number; none: no hostile peer
    #[arg(long, value_name = "N,...", value_parser = numbers, requires = "seed", help_heading = "Parts of a seed")]
    pub(crate) hostiles: Option<Numbers>,

    /// What clients send and ask for, divided by N
    #[arg(long, value_name = "N", default_value_t = 1, requires = "seed", help_heading = "Parts of a seed")]
    pub(crate) divide: u64,

    /// At most N steps of each hostile peer
    #[arg(long, value_name = "N", requires = "seed", help_heading = "Parts of a seed")]
    pub(crate) steps: Option<usize>,

    /// Lose, damage and double only these frames: s12 is the server's 13th, p0 its peers' first; none: no frame
    #[arg(long, value_name = "FRAME,...", value_parser = str::parse::<Fates>, requires = "seed",
          help_heading = "Parts of a seed")]
    pub(crate) fates: Option<Fates>,

    /// What a process runs that another started
    #[arg(long, hide = true)]
    pub(crate) batch: bool,
}

/// A list of numbers.
#[derive(Debug, Clone)]
pub(crate) struct Numbers(BTreeSet<usize>);

fn numbers(text: &str) -> Result<Numbers, String> {
    if text == "none" {
        return Ok(Numbers(BTreeSet::new()));
    }
    let one = |word: &str| word.parse().map_err(|_| format!("{word:?} is no number"));
    text.split(',').map(one).collect::<Result<_, _>>().map(Numbers)
}

impl Options {
    /// What is taken away from the seed.
    pub(crate) fn cuts(&self) -> Cuts {
        Cuts {
            without: self.without.iter().cloned().collect(),
            clients: self.clients.as_ref().map(|numbers| numbers.0.clone()),
            hostiles: self.hostiles.as_ref().map(|numbers| numbers.0.clone()),
            divide: self.divide,
            steps: self.steps,
            fates: self.fates.clone(),
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use clap::CommandFactory;

    #[test]
    fn the_command_line_holds_together() {
        Options::command().debug_assert();
    }

    #[test]
    fn what_cuts_say_is_read_again() {
        let words = "khamsin-sim --seed 7 --without jitter,loss --clients none --hostiles 0,2 --divide 4 --steps 9 --fates p3,s1";
        let cuts = Options::parse_from(words.split(' ')).cuts();
        assert_eq!(format!("khamsin-sim --seed 7{cuts}"), words);
    }
}
