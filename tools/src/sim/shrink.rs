//! Takes away from a failing scenario whatever its failure does not need.

use super::run::run;
use super::scenario::{Cuts, FAULTS, Fates};
use super::{Failure, Files, Outcome, Scenario};
use std::collections::BTreeSet;

/// Runs that one shrinking may take.
const RUNS_MAX: u32 = 3_000;

/// A seed being shrunk.
pub struct Shrinking<'a> {
    files: &'a Files,
    seed: u64,
    /// What is taken away so far.
    pub cuts: Cuts,
    /// The failure that is left.
    pub failure: Failure,
    harmed: BTreeSet<(bool, u64)>,
    runs: u32,
}

impl<'a> Shrinking<'a> {
    /// Begins with `cuts`; `None` if that does not fail.
    pub fn new(files: &'a Files, seed: u64, cuts: Cuts) -> Option<Self> {
        let Outcome { failure, harmed, .. } = run(cuts.apply(Scenario::new(seed)), files, |_| {});
        Some(Shrinking { files, seed, cuts, failure: failure?, harmed, runs: 1 })
    }

    /// Shrinks as far as it goes; `tell` hears of every part that was taken away.
    pub fn run(&mut self, mut tell: impl FnMut(&Cuts, u32)) {
        loop {
            let before = self.cuts.clone();
            self.drop_peers();
            self.drop_faults();
            self.divide();
            self.shorten();
            tell(&self.cuts, self.runs);
            if self.cuts == before || self.runs >= RUNS_MAX {
                break;
            }
        }
        self.drop_fates();
        tell(&self.cuts, self.runs);
    }

    /// Whether the same thing fails with `cuts`; then they are kept.
    fn fails(&mut self, cuts: Cuts) -> bool {
        if self.runs >= RUNS_MAX || cuts == self.cuts {
            return false;
        }
        self.runs += 1;
        let outcome = run(cuts.apply(Scenario::new(self.seed)), self.files, |_| {});
        match outcome.failure {
            Some(failure) if failure.kind == self.failure.kind => {
                (self.cuts, self.failure, self.harmed) = (cuts, failure, outcome.harmed);
                true
            }
            _ => false,
        }
    }

    fn drop_peers(&mut self) {
        let left = self.cuts.apply(Scenario::new(self.seed));
        let all: BTreeSet<usize> = left.hostiles.iter().map(|hostile| hostile.number).collect();
        if !self.fails(Cuts { hostiles: Some(BTreeSet::new()), ..self.cuts.clone() }) {
            for number in &all {
                let mut fewer = self.cuts.hostiles.clone().unwrap_or_else(|| all.clone());
                fewer.remove(number);
                self.fails(Cuts { hostiles: Some(fewer), ..self.cuts.clone() });
            }
        }
        let all: BTreeSet<usize> = left.clients.iter().map(|client| client.number).collect();
        if !self.fails(Cuts { clients: Some(BTreeSet::new()), ..self.cuts.clone() }) {
            for number in &all {
                let mut fewer = self.cuts.clients.clone().unwrap_or_else(|| all.clone());
                fewer.remove(number);
                self.fails(Cuts { clients: Some(fewer), ..self.cuts.clone() });
            }
        }
    }

    fn drop_faults(&mut self) {
        for fault in FAULTS {
            let mut cuts = self.cuts.clone();
            if cuts.without.insert((*fault).to_owned()) {
                self.fails(cuts);
            }
        }
        // One that was not there to begin with is not worth a word.
        let idle: Vec<String> = self.cuts.without.iter().filter(|fault| !self.changes(fault)).cloned().collect();
        self.cuts.without.retain(|fault| !idle.contains(fault));
    }

    /// Whether taking `fault` away takes anything away at all.
    fn changes(&self, fault: &str) -> bool {
        let mut with = self.cuts.clone();
        with.without.remove(fault);
        let describe = |cuts: &Cuts| cuts.apply(Scenario::new(self.seed)).describe();
        describe(&with) != describe(&self.cuts)
    }

    fn divide(&mut self) {
        while self.cuts.divide < 1 << 20
            && self.fails(Cuts { divide: self.cuts.divide.max(1) * 2, ..self.cuts.clone() })
        {}
    }

    /// The fewest steps of hostile peers, by halves.
    fn shorten(&mut self) {
        let left = self.cuts.apply(Scenario::new(self.seed));
        let Some(most) = left.hostiles.iter().map(|hostile| hostile.steps).max() else { return };
        let (mut low, mut high) = (0, self.cuts.steps.unwrap_or(most));
        while low < high {
            let middle = low + (high - low) / 2;
            match self.fails(Cuts { steps: Some(middle), ..self.cuts.clone() }) {
                true => high = middle,
                false => low = middle + 1,
            }
        }
    }

    /// The frames that the path must harm: delta debugging (Zeller and Hildebrandt, 2002).
    fn drop_fates(&mut self) {
        let set = |frames: &[(bool, u64)]| Some(Fates(frames.iter().copied().collect()));
        if self.fails(Cuts { fates: set(&[]), ..self.cuts.clone() }) {
            return;
        }
        let mut frames: Vec<(bool, u64)> = self.harmed.iter().copied().collect();
        if !self.fails(Cuts { fates: set(&frames), ..self.cuts.clone() }) {
            return;
        }
        let mut pieces = 2;
        while frames.len() > 1 && self.runs < RUNS_MAX {
            let size = frames.len().div_ceil(pieces);
            let fewer = (0..pieces).find_map(|piece| {
                let cut = (piece * size).min(frames.len())..((piece + 1) * size).min(frames.len());
                let rest: Vec<_> = [&frames[..cut.start], &frames[cut.end..]].concat();
                (!cut.is_empty() && self.fails(Cuts { fates: set(&rest), ..self.cuts.clone() })).then_some(rest)
            });
            match fewer {
                Some(rest) => (frames, pieces) = (rest, (pieces - 1).max(2)),
                None if pieces >= frames.len() => return,
                None => pieces = (pieces * 2).min(frames.len()),
            }
        }
    }
}
