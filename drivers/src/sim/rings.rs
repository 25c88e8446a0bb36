//! What goes wrong between a queue and its device: rings that run dry, fill up, or move late.

use khamsin_stack::Instant;

/// Stretches of time, each from its first microsecond to behind its last.
#[derive(Clone, PartialEq, Eq, Debug, Default)]
pub struct Spans(Vec<(u64, u64)>);

impl Spans {
    /// These stretches, microseconds.
    pub fn new(spans: impl IntoIterator<Item = (u64, u64)>) -> Self {
        Spans(spans.into_iter().collect())
    }

    /// Whether `now` lies in one of them.
    pub fn contain(&self, now: Instant) -> bool {
        self.0.iter().any(|&(from, to)| (from..to).contains(&now.micros()))
    }

    /// When the stretch that `now` lies in is over.
    pub fn end_of(&self, now: Instant) -> Option<Instant> {
        let inside = self.0.iter().filter(|(from, to)| (*from..*to).contains(&now.micros()));
        inside.map(|&(_, to)| Instant::from_micros(to)).max()
    }

    /// Whether there are none.
    pub fn is_empty(&self) -> bool {
        self.0.is_empty()
    }

    /// The stretches, microseconds.
    pub fn iter(&self) -> impl Iterator<Item = (u64, u64)> {
        self.0.iter().copied()
    }
}

/// The rings between a queue and its device. The default is a device that is always in time.
#[derive(Clone, PartialEq, Eq, Debug)]
pub struct Rings {
    /// Buffers that the fill ring and the receive ring have together: what arrives when so many wait is lost.
    pub rx_frames: usize,
    /// Frames that one `rx_burst` brings at most.
    pub rx_burst_max: usize,
    /// When the fill ring is empty: whatever arrives is lost.
    pub starved: Spans,
    /// When the transmit ring is full: `alloc_tx` has nothing to give.
    pub tx_full: Spans,
    /// Time from sending to completion, microseconds; the buffer is out until then.
    pub completion_us: u64,
    /// Frames of one turn that the device takes at once; the others leave [`tx_retry_us`](Self::tx_retry_us) later, or as
    /// many times that as it takes.
    pub tx_burst_max: usize,
    /// See [`tx_burst_max`](Self::tx_burst_max), microseconds.
    pub tx_retry_us: u64,
}

impl Default for Rings {
    fn default() -> Self {
        Rings {
            rx_frames: usize::MAX,
            rx_burst_max: usize::MAX,
            starved: Spans::default(),
            tx_full: Spans::default(),
            completion_us: 0,
            tx_burst_max: usize::MAX,
            tx_retry_us: 100,
        }
    }
}
