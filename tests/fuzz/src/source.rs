//! Where a harness takes its decisions from: the bytes of an input, or dice.

/// A supply of decisions that comes to an end.
pub trait Source {
    /// The next byte; 0 once there is none.
    fn byte(&mut self) -> u8;

    /// Whether there is nothing left to decide with.
    fn is_empty(&self) -> bool;

    /// Two bytes.
    fn word(&mut self) -> u16 {
        u16::from_le_bytes([self.byte(), self.byte()])
    }

    /// Four bytes.
    fn long(&mut self) -> u32 {
        u32::from(self.word()) | u32::from(self.word()) << 16
    }

    /// A number below `n`, which is at most 65,536; one byte is enough where `n` is.
    fn below(&mut self, n: usize) -> usize {
        if n <= 256 { usize::from(self.byte()) % n } else { usize::from(self.word()) % n }
    }

    /// True once in `n` (up to 256).
    fn once_in(&mut self, n: usize) -> bool {
        self.below(n) == n - 1
    }

    /// One of them.
    fn pick<T: Copy>(&mut self, from: &[T]) -> T {
        from[self.below(from.len())]
    }

    /// Up to `max` bytes as they come.
    fn bytes(&mut self, max: usize) -> Vec<u8> {
        let mut bytes = Vec::with_capacity(max.min(64));
        while bytes.len() < max && !self.is_empty() {
            bytes.push(self.byte());
        }
        bytes
    }
}

/// The bytes of one input.
pub struct Input<'a>(&'a [u8]);

impl<'a> Input<'a> {
    /// Decisions from `bytes`.
    pub fn new(bytes: &'a [u8]) -> Self {
        Input(bytes)
    }

    /// What is left, all at once.
    pub fn rest(&mut self) -> &'a [u8] {
        core::mem::take(&mut self.0)
    }

    /// At most `n` bytes in one piece.
    pub fn take(&mut self, n: usize) -> &'a [u8] {
        let (piece, rest) = self.0.split_at(n.min(self.0.len()));
        self.0 = rest;
        piece
    }
}

impl Source for Input<'_> {
    fn byte(&mut self) -> u8 {
        match self.0 {
            [first, rest @ ..] => {
                self.0 = rest;
                *first
            }
            [] => 0,
        }
    }

    fn is_empty(&self) -> bool {
        self.0.is_empty()
    }
}

/// A small generator (splitmix64), good for a number of bytes that is set at the start.
pub struct Dice {
    state: u64,
    pool: u64,
    pooled: u32,
    left: u64,
}

impl Dice {
    /// `bytes` bytes that depend on `seed` alone.
    pub fn new(seed: u64, bytes: u64) -> Self {
        Dice { state: seed, pool: 0, pooled: 0, left: bytes }
    }
}

impl Source for Dice {
    #[inline]
    fn byte(&mut self) -> u8 {
        if self.pooled == 0 {
            self.state = self.state.wrapping_add(0x9e37_79b9_7f4a_7c15);
            let mut z = self.state;
            z = (z ^ (z >> 30)).wrapping_mul(0xbf58_476d_1ce4_e5b9);
            z = (z ^ (z >> 27)).wrapping_mul(0x94d0_49bb_1331_11eb);
            self.pool = z ^ (z >> 31);
            self.pooled = 8;
        }
        let byte = self.pool as u8;
        self.pool >>= 8;
        self.pooled -= 1;
        self.left = self.left.saturating_sub(1);
        byte
    }

    fn is_empty(&self) -> bool {
        self.left == 0
    }
}
