//! What a sender keeps while something is wrong with its flight: made at the first loss or SACK block, since most
//! connections never see one.

use super::prr::Prr;
use super::undo::Undo;
use crate::Instant;
use std::collections::VecDeque;

/// Stretches sent again that are watched at the same time.
const RESENT_MAX: usize = 1024;

/// How far F-RTO has got (RFC 5682 3.1).
#[derive(Clone, Copy, PartialEq, Eq, Debug)]
pub(super) enum Frto {
    /// It has nothing to find out.
    Off,
    /// The first unacknowledged segment went out again after a timeout; whose ACK comes next is open.
    Watching,
    /// An ACK moved on: new data goes out before anything else is sent again (step 2b).
    SendsNew,
}

/// Bytes sent again at one instant, in the order in which that happened.
#[derive(Clone, Copy, Debug)]
pub(super) struct Resent {
    pub(super) start: u64,
    pub(super) end: u64,
    pub(super) sent: Instant,
}

/// See the module.
#[derive(Clone, Debug)]
pub(super) struct Repair {
    /// End of what was sent when the current or last reduction began.
    pub(super) recover: u64,
    pub(super) prr: Prr,
    pub(super) undo: Option<Undo>,
    /// The reduction before, while it is still open whether it was wrong.
    pub(super) earlier: Option<Undo>,
    pub(super) frto: Frto,
    pub(super) resent: VecDeque<Resent>,
    /// When the first went out of what was sent again and is not all acknowledged yet; that ends below `resent_to`.
    first_resent: Option<Instant>,
    resent_to: u64,
    /// Some of it bears the timestamp of what it repeats: no echo tells which of both was received.
    pub(super) backdated: bool,
    /// When text below `nxt` last went out with the time of then in its timestamp: the peer may take nothing older any more.
    pub(super) stamped_at: Instant,
    /// Nothing below is lost.
    pub(super) lost_from: u64,
    /// Nothing below is flying for the first time.
    pub(super) fresh_from: u64,
    /// Highest offset that was delivered, by ACK or SACK (RFC 8985 6.2 step 3, RACK.fack).
    pub(super) fack: u64,
    pub(super) reordering: Reordering,
    /// Without SACK: duplicates up to here may be those of what a timeout sent again (RFC 6582 3.2).
    pub(super) guard: u64,
    /// Without SACK: in flight when the first duplicate ACK came, before limited transmit added to it.
    pub(super) flight_at_dup: u64,
    /// Without SACK: the timer was restarted by a partial acknowledgement of this recovery.
    pub(super) partial_seen: bool,
}

impl Repair {
    pub(super) fn new(una: u64) -> Box<Self> {
        Box::new(Repair {
            recover: 0,
            prr: Prr::default(),
            undo: None,
            earlier: None,
            frto: Frto::Off,
            resent: VecDeque::new(),
            first_resent: None,
            resent_to: 0,
            backdated: false,
            stamped_at: Instant::ZERO,
            lost_from: una,
            fresh_from: una,
            fack: una,
            reordering: Reordering::default(),
            guard: 0,
            flight_at_dup: 0,
            partial_seen: false,
        })
    }

    /// Bytes went out again.
    pub(super) fn note_resent(&mut self, start: u64, end: u64, sent: Instant) {
        self.first_resent.get_or_insert(sent);
        self.resent_to = self.resent_to.max(end);
        match self.resent.back_mut() {
            Some(last) if last.end == start && last.sent == sent => last.end = end,
            _ => {
                if self.resent.len() >= RESENT_MAX {
                    // Whether it was lost again is left to the timer.
                    self.resent.pop_front();
                }
                self.resent.push_back(Resent { start, end, sent });
            }
        }
    }

    /// Whether an ACK that echoes what was sent at `echoed` (rounded down to `grain_us`) answers a first transmission:
    /// everything that went out again came later (Eifel, RFC 3522 3.2).
    pub(super) fn precedes_resent(&self, echoed: Option<Instant>, grain_us: u64) -> bool {
        let first = self.first_resent.filter(|_| !self.backdated);
        matches!((echoed, first), (Some(echoed), Some(first)) if echoed.micros() + grain_us <= first.micros())
    }

    /// Everything below `una` is acknowledged.
    pub(super) fn note_acked(&mut self, una: u64) {
        if una >= self.resent_to {
            self.first_resent = None;
            self.backdated = false;
            self.resent.clear();
        }
    }
}

/// How much reordering is tolerated (RFC 8985 6.2 step 4).
#[derive(Clone, Copy, Debug)]
pub(super) struct Reordering {
    /// Something arrived late that had been sent once.
    pub(super) seen: bool,
    /// The window in quarters of the least round trip; it ends at one smoothed round trip anyway.
    quarters: u8,
    /// Recoveries until the window is narrow again.
    persist: u8,
    /// A further DSACK counts when this is acknowledged.
    round_end: u64,
}

/// Recoveries for which a widened window is kept.
const PERSIST: u8 = 16;

impl Default for Reordering {
    fn default() -> Self {
        Reordering { seen: false, quarters: 1, persist: 0, round_end: 0 }
    }
}

impl Reordering {
    /// The peer received something twice: what was sent again had merely been late. Counts once a round trip.
    pub(super) fn on_dsack(&mut self, una: u64, nxt: u64) {
        if una >= self.round_end {
            self.round_end = nxt;
            self.quarters = self.quarters.saturating_add(1);
            self.persist = PERSIST;
        }
    }

    /// A recovery is over.
    pub(super) fn on_recovered(&mut self) {
        self.persist = self.persist.saturating_sub(1);
        if self.persist == 0 {
            self.quarters = 1;
        }
    }

    /// The window, microseconds. `eager`: losses are being repaired already or enough was reported beyond the hole.
    pub(super) fn window_us(&self, least_rtt_us: u32, srtt_us: u64, eager: bool) -> u64 {
        if !self.seen && eager {
            return 0;
        }
        (u64::from(least_rtt_us) * u64::from(self.quarters) / 4).min(srtt_us)
    }
}
