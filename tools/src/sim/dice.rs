//! Randomness from a seed.

/// A stream of random numbers: SplitMix64 (Steele, Lea, Flood: "Fast splittable pseudorandom number generators").
#[derive(Clone, Debug)]
pub struct Dice(u64);

impl Dice {
    /// The stream of `seed` that is called `name`. Streams of other names are independent: what one part of a scenario
    /// draws changes nothing for the others.
    pub fn new(seed: u64, name: &str) -> Self {
        let name = name.bytes().fold(0xcbf2_9ce4_8422_2325, |hash: u64, byte| {
            (hash ^ u64::from(byte)).wrapping_mul(0x0000_0100_0000_01b3)
        });
        let mut dice = Dice(seed.wrapping_mul(0xd134_2543_de82_ef95) ^ name);
        dice.next();
        dice
    }

    /// The next number.
    #[allow(clippy::should_implement_trait)] // it never ends
    pub fn next(&mut self) -> u64 {
        self.0 = self.0.wrapping_add(0x9e37_79b9_7f4a_7c15);
        let mut z = self.0;
        z = (z ^ (z >> 30)).wrapping_mul(0xbf58_476d_1ce4_e5b9);
        z = (z ^ (z >> 27)).wrapping_mul(0x94d0_49bb_1331_11eb);
        z ^ (z >> 31)
    }

    /// A number from 0 to below `limit`; 0 for a limit of 0.
    pub fn below(&mut self, limit: u64) -> u64 {
        self.next() % limit.max(1)
    }

    /// A number from `least` to `most`, both included.
    pub fn between(&mut self, least: u64, most: u64) -> u64 {
        least + self.below(most.saturating_sub(least) + 1)
    }

    /// A number from `least` to `most`, as often between 1 and 10 as between 10 and 100: sizes and times of all scales.
    pub fn scaled(&mut self, least: u64, most: u64) -> u64 {
        let bits = |n: u64| u64::from(n.max(1).ilog2());
        let top = 1u64 << self.between(bits(least), bits(most)).min(62);
        self.between(top, 2 * top - 1).clamp(least, most)
    }

    /// True in `percent` of a hundred cases.
    pub fn chance(&mut self, percent: u64) -> bool {
        self.below(100) < percent
    }

    /// One of `among`.
    pub fn pick<T: Copy>(&mut self, among: &[T]) -> T {
        among[self.below(among.len() as u64) as usize]
    }
}

/// Bytes that no two streams have in common: position and stream decide each.
pub fn pattern(stream: u64, len: usize) -> Vec<u8> {
    let byte = |i: u64| (i ^ stream.wrapping_mul(0x2545_f491_4f6c_dd1d)).wrapping_mul(0x9e37_79b9_7f4a_7c15) >> 56;
    (0..len as u64).map(|i| byte(i) as u8).collect()
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_stream_repeats_itself_and_no_other() {
        let numbers = |seed, name| {
            let mut dice = Dice::new(seed, name);
            [dice.next(), dice.next(), dice.next()]
        };
        assert_eq!(numbers(1, "a"), numbers(1, "a"));
        assert_ne!(numbers(1, "a"), numbers(2, "a"));
        assert_ne!(numbers(1, "a"), numbers(1, "b"));
    }

    #[test]
    fn numbers_stay_in_bounds() {
        let mut dice = Dice::new(3, "bounds");
        for _ in 0..10_000 {
            assert!((5..=9).contains(&dice.between(5, 9)));
            assert!((3..=70_000).contains(&dice.scaled(3, 70_000)));
            assert!(dice.below(1) == 0 && dice.below(0) == 0);
        }
        let small = (0..10_000).filter(|_| dice.scaled(1, 1 << 20) < 1 << 10).count();
        assert!((4_000..6_000).contains(&small), "{small} of 10,000 below the middle scale");
    }

    #[test]
    fn patterns_differ() {
        assert_eq!(pattern(1, 50), pattern(1, 90)[..50]);
        assert_ne!(pattern(1, 50), pattern(2, 50));
    }
}
