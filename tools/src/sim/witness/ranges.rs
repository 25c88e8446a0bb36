//! Sets of positions, as ranges.

/// Positions that have been seen, in ranges that do not touch. What lies before the first range's end is one piece.
#[derive(Clone, Debug, Default)]
pub struct Ranges(Vec<(u64, u64)>);

/// More pieces than this are only made by a peer that means harm; the last are forgotten then.
const PIECES: usize = 4096;

impl Ranges {
    /// Adds the positions from `from` to below `to`.
    pub fn add(&mut self, from: u64, to: u64) {
        if from >= to {
            return;
        }
        let first = self.0.partition_point(|range| range.1 < from);
        let behind = self.0.partition_point(|range| range.0 <= to);
        if first == behind {
            self.0.insert(first, (from, to));
            self.0.truncate(PIECES);
            return;
        }
        let merged = (self.0[first].0.min(from), self.0[behind - 1].1.max(to));
        self.0.splice(first..behind, [merged]);
    }

    /// The first position from `from` on that has not been seen.
    pub fn end_from(&self, from: u64) -> u64 {
        match self.0[..self.0.partition_point(|range| range.0 <= from)].last() {
            Some(&(_, to)) if to > from => to,
            _ => from,
        }
    }

    /// The first position from `from` on that has been seen.
    pub fn start_from(&self, from: u64) -> Option<u64> {
        let range = self.0.get(self.0.partition_point(|range| range.1 <= from))?;
        Some(range.0.max(from))
    }

    /// How many positions there are.
    pub fn count(&self) -> u64 {
        self.0.iter().map(|(from, to)| to - from).sum()
    }

    /// How many ranges they form.
    pub fn pieces(&self) -> usize {
        self.0.len()
    }

    /// Whether all positions from `from` to below `to` have been seen.
    pub fn cover(&self, from: u64, to: u64) -> bool {
        from >= to || self.end_from(from) >= to
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn ranges_against_a_plain_set() {
        let mut dice = crate::sim::dice::Dice::new(1, "ranges");
        for _ in 0..200 {
            let (mut ranges, mut plain) = (Ranges::default(), [false; 64]);
            for _ in 0..20 {
                let from = dice.below(60);
                let to = from + dice.below(8);
                ranges.add(from, to.min(64));
                (from..to.min(64)).for_each(|at| plain[at as usize] = true);
                let end = |from: u64| (from..64).find(|&at| !plain[at as usize]).unwrap_or(64);
                assert!((0..64).all(|at| ranges.end_from(at) == end(at)));
                let start = |from: u64| (from..64).find(|&at| plain[at as usize]);
                assert!((0..64).all(|at| ranges.start_from(at) == start(at)));
                assert_eq!(ranges.count(), plain.iter().filter(|seen| **seen).count() as u64);
                let starts = (0..64).filter(|&at| plain[at] && (at == 0 || !plain[at - 1]));
                assert_eq!(ranges.pieces(), starts.count());
                assert!(ranges.0.windows(2).all(|pair| pair[0].1 < pair[1].0));
            }
            assert!(ranges.cover(3, 3) && ranges.cover(0, 1) == plain[0]);
        }
    }
}
