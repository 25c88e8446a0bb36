//! Half-open connections: a record each, no socket and no buffer before the handshake's ACK.

use crate::limits::{DEFAULT_MSS_V4, DEFAULT_MSS_V6, MIN_MSS, RX_SHIFT, SYN_ACK_RETRIES, SYN_ACK_RTO_US};
use crate::sources::Place;
use crate::timestamps::{Remembered, Timestamps};
use crate::wheel::Wheel;
use crate::wire::{Flags, TcpOptions, Template};
use crate::{FlowKey, Instant};
use arrayvec::ArrayVec;

/// What a SYN said and what we answered.
#[derive(Clone)]
pub(crate) struct SynRecord {
    pub(crate) key: FlowKey,
    /// The flow table's hash of it.
    pub(crate) flow: u64,
    /// Where its source is counted, if it is.
    pub(crate) source: Option<Place>,
    /// Headers towards the peer, link layer included.
    pub(crate) template: Template,
    /// The peer's initial sequence number.
    pub(crate) irs: u32,
    /// Our initial sequence number.
    pub(crate) iss: u32,
    /// Largest segment the peer takes, bytes.
    pub(crate) peer_mss: u16,
    /// The peer's window shift; `None` when it cannot scale, and then neither do we.
    pub(crate) peer_shift: Option<u8>,
    /// The peer reads SACK.
    pub(crate) sack: bool,
    /// The peer's timestamps and ours; `None` when it sent none, and then neither do we (RFC 7323 3.2).
    pub(crate) stamps: Option<Timestamps>,
    /// The peer asked for explicit congestion notification, and gets it (RFC 3168 6.1.1).
    pub(crate) ecn: bool,
    /// Nothing of it is kept: what the peer will have to bring back must be in the SYN|ACK.
    cookie: bool,
    /// Position in the shard's list of listeners.
    pub(crate) listener: u16,
    /// When the SYN|ACK went out.
    sent_at: Instant,
    /// Its round trip says nothing (any more): it went out twice, or its ACK could not be taken.
    unmeasurable: bool,
    retries: u8,
}

impl SynRecord {
    pub(crate) fn new(
        key: FlowKey,
        flow: u64,
        template: Template,
        [irs, iss]: [u32; 2],
        said: &TcpOptions,
        listener: u16,
    ) -> Self {
        let default = if key.is_v4() { DEFAULT_MSS_V4 } else { DEFAULT_MSS_V6 };
        // A zero MSS is treated as absent, as Linux does.
        let peer_mss = said.mss.filter(|&mss| mss != 0).unwrap_or(default).max(MIN_MSS);
        SynRecord {
            key,
            flow,
            source: None,
            template,
            irs,
            iss,
            peer_mss,
            peer_shift: said.window_scale,
            sack: said.sack_permitted,
            stamps: None,
            ecn: false,
            cookie: false,
            listener,
            sent_at: Instant::ZERO,
            unmeasurable: false,
            retries: 0,
        }
    }

    /// What the handshake says of the path: its round trip, microseconds, if the SYN|ACK went out once (Karn).
    pub(crate) fn round_trip_us(&self, now: Instant) -> Option<u64> {
        (!self.unmeasurable).then(|| now.micros_since(self.sent_at))
    }

    /// Whether nobody answered the first SYN|ACK in time.
    pub(crate) fn was_lost(&self) -> bool {
        self.retries > 0
    }

    /// With the peer's timestamps, as its SYN or the segment that brings back a cookie has them; `offset`, of ours, is asked for
    /// only then.
    pub(crate) fn with_timestamps(mut self, now: Instant, said: &TcpOptions, offset: impl FnOnce() -> u32) -> Self {
        self.stamps = said.timestamps.map(|(tsval, _)| Timestamps::new(now, offset(), tsval));
        self
    }

    /// With ECN, if the flags of the SYN ask for it (RFC 3168 6.1.1: both bits, or it is something else).
    pub(crate) fn with_ecn(mut self, flags: Flags) -> Self {
        self.ecn = flags.contains(Flags::ECE | Flags::CWR);
        self
    }

    /// Leaves what a cookie can bring back: its number has no room for options, nor for when it was sent. Our timestamp
    /// has some (RFC 7323 allows any clock), if the peer will echo it.
    pub(crate) fn reduce_to_cookie(&mut self) {
        (self.cookie, self.unmeasurable) = (true, true);
        if self.stamps.is_none() {
            (self.peer_shift, self.sack, self.ecn) = (None, false, false);
        }
    }

    /// Takes up what our timestamp remembered.
    pub(crate) fn restore(&mut self, syn: &Remembered) {
        (self.peer_shift, self.sack, self.ecn) = (syn.shift, syn.sack, syn.ecn);
    }

    /// The options of our SYN|ACK: what we take, and what of the peer's we understood.
    pub(crate) fn options(&self, now: Instant, our_mss: u16) -> ArrayVec<u8, 24> {
        let mut options = ArrayVec::new();
        let [high, low] = our_mss.to_be_bytes();
        options.extend([2, 4, high, low]);
        if let Some(stamps) = &self.stamps {
            options.extend(if self.cookie {
                let syn = Remembered { shift: self.peer_shift, sack: self.sack, ecn: self.ecn };
                stamps.cookie_option(now, &syn)
            } else {
                stamps.option(now)
            });
        }
        if self.peer_shift.is_some() {
            options.extend([3, 3, RX_SHIFT, 1]);
        }
        if self.sack {
            options.extend([4, 2, 1, 1]);
        }
        options
    }
}

/// What is due for a half-open connection.
pub(crate) enum SynDue {
    /// Send the SYN|ACK again.
    Retransmit(u32),
    /// Forget it: nobody answers.
    Expired(u32),
}

/// A bounded table of half-open connections.
pub(crate) struct SynTable {
    /// Grows within its capacity: what was never needed is never touched.
    records: Vec<Option<SynRecord>>,
    capacity: usize,
    free: Vec<u32>,
    wheel: Wheel,
}

impl SynTable {
    /// Bytes of a half-open connection.
    pub(crate) const BYTES_EACH: usize = size_of::<Option<SynRecord>>() + size_of::<u32>() + Wheel::BYTES_EACH;

    pub(crate) fn new(capacity: usize) -> Self {
        SynTable {
            records: Vec::with_capacity(capacity),
            capacity,
            free: Vec::with_capacity(capacity),
            wheel: Wheel::new(capacity),
        }
    }

    /// Half-open connections.
    pub(crate) fn len(&self) -> usize {
        self.records.len() - self.free.len()
    }

    /// Whether [`insert`](Self::insert) has no room.
    pub(crate) fn is_full(&self) -> bool {
        self.len() == self.capacity
    }

    /// Adds a record whose SYN|ACK goes out `now`; `None` when the table is full.
    pub(crate) fn insert(&mut self, now: Instant, record: SynRecord) -> Option<u32> {
        if self.is_full() {
            return None;
        }
        let id = self.free.pop().unwrap_or_else(|| {
            self.records.push(None);
            (self.records.len() - 1) as u32
        });
        self.records[id as usize] = Some(SynRecord { sent_at: now, ..record });
        self.wheel.arm(id, now.plus_micros(SYN_ACK_RTO_US));
        Some(id)
    }

    pub(crate) fn record(&self, id: u32) -> Option<&SynRecord> {
        self.records[id as usize].as_ref()
    }

    /// The same SYN came again, with a later timestamp: that is the one to echo.
    pub(crate) fn take_timestamp(&mut self, now: Instant, id: u32, said: &TcpOptions) {
        if let Some(stamps) = self.records[id as usize].as_mut().and_then(|r| r.stamps.as_mut())
            && let Some((tsval, _)) = said.timestamps
            && !stamps.is_old(now, tsval)
        {
            stamps.take(now, tsval);
        }
    }

    /// The same SYN came again: without the bits of ECN, it takes the question back (RFC 3168 6.1.1).
    pub(crate) fn confirm_ecn(&mut self, id: u32, flags: Flags) {
        if let Some(record) = self.records[id as usize].as_mut() {
            record.ecn &= flags.contains(Flags::ECE | Flags::CWR);
        }
    }

    /// The round trip of this handshake cannot be told any more.
    pub(crate) fn spoil_round_trip(&mut self, id: u32) {
        if let Some(record) = self.records[id as usize].as_mut() {
            record.unmeasurable = true;
        }
    }

    /// Forgets a record; nothing happens if it is not there.
    pub(crate) fn remove(&mut self, id: u32) {
        // A copy of what most callers do not want would cost more than the rest.
        if self.records[id as usize].is_some() {
            self.records[id as usize] = None;
            self.wheel.disarm(id);
            self.free.push(id);
        }
    }

    /// The next record whose time has come. An expired one is still there, for the caller to remove.
    pub(crate) fn pop_due(&mut self, now: Instant, budget: &mut u32) -> Option<SynDue> {
        loop {
            let id = self.wheel.pop_expired(now, budget)?;
            let Some(record) = self.records[id as usize].as_mut() else { continue };
            if record.retries == SYN_ACK_RETRIES {
                return Some(SynDue::Expired(id));
            }
            record.retries += 1;
            record.unmeasurable = true;
            self.wheel.arm(id, now.plus_micros(SYN_ACK_RTO_US << record.retries));
            return Some(SynDue::Retransmit(id));
        }
    }

    /// When to call [`pop_due`](Self::pop_due) again.
    pub(crate) fn deadline(&self) -> Option<Instant> {
        self.wheel.next_deadline()
    }
}
