//! When to acknowledge what has arrived.

use crate::Instant;
use crate::limits::{DEFAULT_MSS_V4, DELAYED_ACK_US, QUICK_ACKS};

/// Acknowledgements that repeat the last one, sent as they are asked for; more of them wait for the end of the turn. Three
/// is what makes a peer without SACK retransmit (RFC 5681 3.2).
const REPEATED: u8 = 3;

/// A silence after which the peer's congestion window is small again, microseconds (RFC 5681 4.1: its retransmission
/// timeout, which we do not know; RFC 6298 starts at this).
const PAUSE_US: u64 = 1_000_000;

/// The timing of one connection's acknowledgements.
///
/// Every second full segment is acknowledged (RFC 9293 3.8.6.3, RFC 5681 4.2), once in a turn for all that came in it; the
/// rest waits a little for data to ride on. At the start of a connection and after a pause nothing waits: the peer's window
/// is small and each acknowledgement opens it. Once we answer, it is a conversation, and acknowledgements ride on answers
/// (Linux: quickack and pingpong modes).
#[derive(Default)]
pub(super) struct Acks {
    /// When an acknowledgement that waits for data to ride on goes on its own.
    pub(super) deadline: Option<Instant>,
    now: bool,
    /// Text came behind a hole, elsewhere than the text before it, and no acknowledgement has told of it.
    news: bool,
    /// Segments still acknowledged without delay.
    quick: u8,
    /// When new text last came.
    heard: Instant,
    /// Acknowledgements sent since the last progress that said the same as the one before.
    repeated: u8,
    /// Largest segment seen, bytes; see [`full_segment`](Self::full_segment).
    largest: u16,
    /// What we told the peer to send at most, bytes.
    mss: u16,
}

impl Acks {
    pub(super) fn new(mss: u16) -> Self {
        Acks { quick: QUICK_ACKS, largest: mss.min(DEFAULT_MSS_V4), mss, ..Acks::default() }
    }

    /// What the peer's full segments seem to be, bytes: its path may be narrower than what we take.
    #[inline]
    pub(super) fn full_segment(&self) -> u64 {
        u64::from(self.largest)
    }

    /// `len` bytes of new text in order; `unacknowledged` are not acknowledged in all.
    #[inline]
    pub(super) fn on_progress(&mut self, now: Instant, len: u64, unacknowledged: u64) {
        if len > u64::from(self.largest) {
            // A device may have joined several segments into one.
            self.largest = len.min(u64::from(self.mss)) as u16;
        }
        self.repeated = 0;
        if now.micros_since(self.heard) > PAUSE_US {
            self.quick = QUICK_ACKS;
        }
        self.heard = now;
        if self.quick > 0 {
            self.quick -= 1;
            self.now = true;
        } else if unacknowledged >= 2 * u64::from(self.largest) {
            self.now = true;
        } else if self.deadline.is_none() {
            self.deadline = Some(now.plus_micros(DELAYED_ACK_US));
        }
    }

    /// How long ago new text last came in order, microseconds.
    pub(super) fn silence_us(&self, now: Instant) -> u64 {
        now.micros_since(self.heard)
    }

    /// An acknowledgement is to go with this turn.
    #[inline]
    pub(super) fn at_once(&mut self) {
        self.now = true;
    }

    /// Text came behind a hole, elsewhere than the text before it: behind a new one, or into one that is thereby filled. A SACK
    /// option names three or four ranges, those with the latest news: where more have some until the end of a turn, the peer
    /// never hears of the first, and takes what we hold for lost. Text that goes on where the text before it ended is told
    /// with it.
    pub(super) fn on_news(&mut self) {
        self.news = true;
    }

    /// One more that says the same; whether it is to go before anything else is looked at.
    pub(super) fn repeat(&mut self) -> bool {
        self.now = true;
        self.repeated = self.repeated.saturating_add(1);
        self.repeated <= REPEATED || self.news
    }

    /// What we hold has been told.
    pub(super) fn on_report(&mut self) {
        self.news = false;
    }

    #[inline]
    pub(super) fn due(&self) -> bool {
        self.now
    }

    /// A segment with an acknowledgement has gone out; with text, if not `pure`.
    #[inline]
    pub(super) fn on_sent(&mut self, now: Instant, pure: bool) {
        self.deadline = None;
        self.now = false;
        if !pure && now.micros_since(self.heard) < DELAYED_ACK_US {
            self.quick = 0;
        }
    }
}
