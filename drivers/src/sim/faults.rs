//! What becomes of a frame.

use super::{Side, SimConfig};
use khamsin_stack::Instant;

/// A frame at the moment it is sent.
#[derive(Clone, Copy, Debug)]
pub struct Sighting<'a> {
    /// Who sends it.
    pub from: Side,
    /// How many frames that end has sent before it.
    pub index: u64,
    /// When.
    pub at: Instant,
    /// The frame, complete.
    pub frame: &'a [u8],
}

/// Bytes of an Ethernet header. Random damage leaves it alone: what turns bits over behind the frame check sequence is a
/// router's memory, and a router writes that header afresh.
const ETHERNET: usize = 14;

/// What becomes of one frame.
#[derive(Clone, Copy, PartialEq, Eq, Debug, Default)]
pub struct Fate {
    /// It does not arrive.
    pub lost: bool,
    /// It arrives that much later than the wire's latency says, microseconds.
    pub delay_us: u64,
    /// A copy of it arrives as well, that many microseconds after it.
    pub copy_after_us: Option<u64>,
    /// This bit of it, counted from the first byte's lowest, arrives turned over. Beyond its end: none.
    pub flipped_bit: Option<usize>,
}

impl Fate {
    /// It arrives as it was sent.
    pub const FINE: Fate = Fate { lost: false, delay_us: 0, copy_after_us: None, flipped_bit: None };
    /// It does not arrive.
    pub const LOST: Fate = Fate { lost: true, ..Fate::FINE };
}

/// Decides over each frame. Closures do.
pub trait Faults {
    /// The fate of the frame seen.
    fn fate(&mut self, seen: &Sighting<'_>) -> Fate;
}

impl<F: FnMut(&Sighting<'_>) -> Fate> Faults for F {
    fn fate(&mut self, seen: &Sighting<'_>) -> Fate {
        self(seen)
    }
}

/// Faults with given frequencies. A frame's fate depends on the seed, its sender and its index and on nothing else: taking
/// one fault away from a run leaves the dice of every other frame as they were.
#[derive(Clone, Debug)]
pub struct RandomFaults {
    seed: u64,
    loss: u32,
    duplicate: u32,
    corrupt: u32,
    reorder: u32,
    reorder_us: u64,
}

impl RandomFaults {
    /// The faults that `config` asks for.
    pub fn new(config: &SimConfig) -> Self {
        RandomFaults {
            seed: config.seed,
            loss: config.loss_per_million,
            duplicate: config.duplicate_per_million,
            corrupt: config.corrupt_per_million,
            reorder: config.reorder_per_million,
            reorder_us: config.reorder_us,
        }
    }
}

impl Faults for RandomFaults {
    fn fate(&mut self, seen: &Sighting<'_>) -> Fate {
        let mut dice = Dice::of(self.seed, seen.from, seen.index);
        Fate {
            lost: dice.hits(self.loss),
            copy_after_us: dice.hits(self.duplicate).then_some(self.reorder_us),
            delay_us: if dice.hits(self.reorder) { self.reorder_us } else { 0 },
            flipped_bit: dice.hits(self.corrupt).then(|| Dice::bit(dice.next(), seen.frame.len())),
        }
    }
}

/// SplitMix64 (Steele, Lea, Flood: "Fast splittable pseudorandom number generators").
pub(super) struct Dice(u64);

impl Dice {
    /// The dice of the frame that `from` sends after `index` others.
    pub(super) fn of(seed: u64, from: Side, index: u64) -> Dice {
        Dice(seed ^ mix(index << 1 | u64::from(from == Side::Right)))
    }

    /// Which bit of a frame of `frame_len` bytes `die` damages.
    pub(super) fn bit(die: u64, frame_len: usize) -> usize {
        let packet = frame_len.saturating_sub(ETHERNET).max(1);
        8 * ETHERNET + (die % (8 * packet as u64)) as usize
    }

    pub(super) fn next(&mut self) -> u64 {
        self.0 = self.0.wrapping_add(0x9e37_79b9_7f4a_7c15);
        mix(self.0)
    }

    pub(super) fn hits(&mut self, per_million: u32) -> bool {
        self.next() % 1_000_000 < u64::from(per_million)
    }
}

fn mix(mut z: u64) -> u64 {
    z = (z ^ (z >> 30)).wrapping_mul(0xbf58_476d_1ce4_e5b9);
    z = (z ^ (z >> 27)).wrapping_mul(0x94d0_49bb_1331_11eb);
    z ^ (z >> 31)
}

#[cfg(test)]
mod tests {
    use super::*;

    fn fates(config: &SimConfig) -> Vec<Fate> {
        let mut faults = RandomFaults::new(config);
        let frame = [0; 60];
        (0..100_000)
            .map(|index| faults.fate(&Sighting { from: Side::Left, index, at: Instant::ZERO, frame: &frame }))
            .collect()
    }

    #[test]
    fn frequencies_are_as_asked() {
        let config = SimConfig {
            loss_per_million: 200_000,
            duplicate_per_million: 50_000,
            reorder_per_million: 100_000,
            corrupt_per_million: 10_000,
            seed: 7,
            ..SimConfig::default()
        };
        let fates = fates(&config);
        let share = |hit: &dyn Fn(&Fate) -> bool| fates.iter().filter(|f| hit(f)).count();
        assert!((19_000..21_000).contains(&share(&|f| f.lost)));
        assert!((4_500..5_500).contains(&share(&|f| f.copy_after_us.is_some())));
        assert!((9_500..10_500).contains(&share(&|f| f.delay_us > 0)));
        assert!((850..1_150).contains(&share(&|f| f.flipped_bit.is_some())));
        assert!(fates.iter().all(|f| f.flipped_bit.is_none_or(|bit| (112..480).contains(&bit))));
    }

    #[test]
    fn one_fault_leaves_the_others_alone() {
        let lossy = SimConfig { loss_per_million: 200_000, seed: 1, ..SimConfig::default() };
        let both = SimConfig { reorder_per_million: 300_000, ..lossy.clone() };
        let lost = |config| fates(config).iter().map(|f| f.lost).collect::<Vec<_>>();
        assert_eq!(lost(&lossy), lost(&both));
        assert_ne!(lost(&lossy), lost(&SimConfig { seed: 2, ..lossy.clone() }));
    }
}
