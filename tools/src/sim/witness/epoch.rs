//! One connection as the wire shows it: what arrived, what was said of it, and what is therefore allowed.
//!
//! Positions are counted in 64 bits from each side's SYN, which is 0; the first byte is 1.

use super::ranges::Ranges;
use super::stamps::Stamps;
use super::{Opening, Terms};
use khamsin_drivers::sim::client::{ACK, FIN, RST, Segment};
use khamsin_stack::limits::MIN_MSS;
use khamsin_stack::{Instant, TxOffload};

/// Segments of the initial window (RFC 6928). Every duplicate acknowledgement allows one more (RFC 3042, RFC 5681 3.2).
const INITIAL_SEGMENTS: u64 = 10;
/// Runs of text on their way of which the server remembers each for itself, at least (`RUNS_MIN` in
/// stack/src/recovery/scoreboard.rs).
const RUNS: usize = 64;
/// The largest window scale there is (RFC 7323 2.3).
const WIDEST: u8 = 14;
/// Further away than any window: not this connection.
const NEAR: u32 = 1 << 26;

pub(super) struct Epoch {
    iss: u32,
    irs: u32,
    /// Largest payload and options of one segment, bytes.
    mss: usize,
    our_shift: u8,
    peer_shift: u8,
    sack: bool,
    stamps: bool,
    /// Timestamps of our SYN|ACK, each time it went out.
    greetings: Vec<u32>,
    /// The peer may have answered a cookie with a timestamp of its own invention: what it says was agreed on is not known.
    forged: bool,

    got: Ranges,
    /// The part of it that came in segments which we have no reason to turn away.
    good: Ranges,
    /// What we have acknowledged, and the edge of the window that we have offered.
    acked: u64,
    edge: u64,
    /// In order and not acknowledged since then.
    due_since: Option<Instant>,

    /// Behind the last that we have sent; the oldest that is not acknowledged; where the peer's window ends.
    furthest: u64,
    una: u64,
    /// What the peer has reported beyond it (RFC 2018).
    sacked: Ranges,
    /// Segments with text since everything was acknowledged last.
    pieces: usize,
    /// Acknowledgements that came before the first of any text.
    idle_acks: u64,
    peer_edge: u64,
    max_window: u64,
    fin_at: Option<u64>,
    data_at: Instant,
    /// Timestamps: the last we sent, and the ones that the peer sent last.
    stamp: Option<Stamps>,
    peer_stamps: Vec<u32>,
    over: bool,
}

impl Epoch {
    pub(super) fn new(syn_ack: &Segment<'_>, syn: &Opening, terms: &Terms) -> Self {
        let headers = if syn_ack.to.is_ipv4() { 40 } else { 60 };
        // RFC 9293 3.7.1: without the option, 536 for IPv4 and 1220 for IPv6.
        // A maximum of 0 is none (Linux: `tcp_parse_options`).
        let said = syn.mss.filter(|&mss| mss > 0).unwrap_or(if headers == 40 { 536 } else { 1220 }).max(MIN_MSS);
        let scaled = syn_ack.window_scale.is_some() && syn.scale.is_some();
        let shift = |scale: Option<u8>| scale.filter(|_| scaled).unwrap_or(0).min(WIDEST);
        Epoch {
            iss: syn_ack.seq,
            irs: syn.irs,
            mss: usize::from(said).min(terms.caps.mtu - headers),
            our_shift: shift(syn_ack.window_scale),
            peer_shift: shift(syn.scale),
            sack: syn_ack.sack_permitted,
            stamps: syn_ack.timestamps.is_some(),
            greetings: syn_ack.timestamps.iter().map(|(value, _)| *value).collect(),
            forged: false,
            got: Ranges::default(),
            good: Ranges::default(),
            acked: 1,
            edge: 1 + u64::from(syn_ack.window),
            due_since: None,
            furthest: 1,
            una: 0,
            sacked: Ranges::default(),
            pieces: 0,
            idle_acks: 0,
            peer_edge: 1 + u64::from(syn.window),
            max_window: syn.window.into(),
            fin_at: None,
            data_at: Instant::ZERO,
            stamp: syn_ack.timestamps.map(|(value, _)| Stamps::new(value)),
            peer_stamps: syn.stamp.into_iter().collect(),
            over: false,
        }
    }

    /// The peer's SYN came with these timestamps, too.
    pub(super) fn with_stamps(mut self, stamps: impl Iterator<Item = u32>) -> Self {
        self.peer_stamps.extend(stamps);
        self
    }

    pub(super) fn is(&self, iss: u32, irs: u32) -> bool {
        self.iss == iss && self.irs == irs
    }

    /// The SYN|ACK again.
    pub(super) fn repeated(&mut self, syn_ack: &Segment<'_>) -> Result<(), String> {
        self.greetings.extend(syn_ack.timestamps.map(|(value, _)| value));
        let same = syn_ack.sack_permitted == self.sack && syn_ack.timestamps.is_some() == self.stamps;
        if same { Ok(()) } else { Err("the SYN|ACK again with other options".to_owned()) }
    }

    /// How far a segment that we send is from where this connection stands; `None`: it belongs to another.
    pub(super) fn distance(&self, segment: &Segment<'_>) -> Option<u32> {
        let ours = segment.seq.wrapping_sub(self.iss.wrapping_add(self.furthest as u32)) as i32;
        let theirs = segment.ack.wrapping_sub(self.irs.wrapping_add(self.acked as u32)) as i32;
        (ours.unsigned_abs() < NEAR && theirs.unsigned_abs() < NEAR).then_some(ours.unsigned_abs())
    }

    pub(super) fn over(&mut self) {
        self.over = true;
        self.due_since = None;
    }

    pub(super) fn take(&mut self, now: Instant, segment: &Segment<'_>, honest: bool) {
        if segment.flags & RST != 0 {
            return self.over();
        }
        let mut good = honest && !self.over;
        if let Some((value, _)) = segment.timestamps {
            // RFC 7323 5.3: an old one is turned away.
            good &= self.peer_stamps.iter().all(|&stamp| value.wrapping_sub(stamp) as i32 >= 0);
            self.peer_stamps.push(value);
            if self.peer_stamps.len() > 4096 {
                self.peer_stamps.drain(..2048);
            }
        }
        let distance = segment.seq.wrapping_sub(self.irs.wrapping_add(self.acked as u32)) as i32;
        let seq = self.acked as i64 + i64::from(distance);
        let fin = u64::from(segment.flags & FIN != 0);
        let end = seq + segment.payload.len() as i64 + fin as i64;
        self.got.add(seq.max(1) as u64, end.max(1) as u64);
        if segment.flags & ACK == 0 {
            return;
        }
        self.idle_acks += u64::from(self.una <= 1);
        if !honest && self.una <= 1 {
            self.look_for_forgery(segment);
        }
        let Some(ack) = position(segment.ack, self.iss, self.una.max(1)) else { return };
        // RFC 5961 5.2: one that acknowledges what lies too far back is turned away.
        // What lies behind a hole may be refused, or given up for others: only what is next must be taken.
        good &= seq <= self.good.end_from(self.acked) as i64;
        if good && ack + self.max_window >= self.una && end as u64 <= self.edge + fin {
            self.good.add(seq.max(1) as u64, end.max(1) as u64);
            if self.due_since.is_none() && self.good.end_from(self.acked) > self.acked {
                self.due_since = Some(now);
            }
        }
        if ack <= self.furthest {
            let window = u64::from(segment.window) << if self.forged { WIDEST } else { self.peer_shift };
            self.peer_edge = self.peer_edge.max(ack + window);
            self.max_window = self.max_window.max(window);
            self.una = self.una.max(ack);
            self.pieces = if self.una == self.furthest { 0 } else { self.pieces };
            self.take_blocks(segment, ack);
        }
    }

    /// A cookie's options are in the timestamp that comes back with it, which nothing protects. A peer that makes one up has
    /// the options that it names: any scale, and SACK.
    fn look_for_forgery(&mut self, segment: &Segment<'_>) {
        self.forged |= self.stamps && segment.timestamps.is_some_and(|(_, echo)| !self.greetings.contains(&echo));
    }

    fn take_blocks(&mut self, segment: &Segment<'_>, ack: u64) {
        for &(left, right) in segment.sack.iter() {
            let (left, right) = (position(left, self.iss, self.una), position(right, self.iss, self.una));
            if let (Some(left), Some(right)) = (left, right)
                && left > ack
                && right <= self.furthest
            {
                self.sacked.add(left, right);
            }
        }
    }

    pub(super) fn give(
        &mut self,
        now: Instant,
        segment: &Segment<'_>,
        offload: TxOffload,
        terms: &Terms,
        honest: bool,
        blurred: bool,
    ) -> Result<(), String> {
        // What a reset has ended may be answered as a connection of the past, or in TIME-WAIT.
        if self.over && !honest {
            return Ok(());
        }
        // The options behind a cookie are what the timestamps in its answer say, be they the peer's own invention or missing.
        if !honest && segment.timestamps.is_some() != self.stamps {
            return Ok(());
        }
        self.check_acknowledgement(segment, blurred)?;
        if !blurred {
            self.check_sack(segment)?;
        }
        self.check_stamps(segment, honest, blurred)?;
        if !self.forged {
            self.check_window(segment)?;
        }
        if blurred {
            return self.check_size(segment, offload);
        }
        self.check_text(now, segment, offload, terms, honest)
    }

    fn check_acknowledgement(&mut self, segment: &Segment<'_>, blurred: bool) -> Result<(), String> {
        let Some(ack) = position(segment.ack, self.irs, self.acked) else {
            return Err("an acknowledgement from nowhere".to_owned());
        };
        if ack < self.acked {
            return Err(format!("acknowledged {ack} after {}", self.acked));
        }
        let end = self.got.end_from(self.acked);
        if ack > end && !blurred {
            return Err(format!("acknowledged {ack}, of which only what lies before {end} has arrived"));
        }
        self.acked = ack;
        if ack >= self.good.end_from(ack) {
            self.due_since = None;
        }
        Ok(())
    }

    fn check_sack(&self, segment: &Segment<'_>) -> Result<(), String> {
        if !segment.sack.is_empty() && !self.sack && !self.forged {
            return Err("a SACK option that was not agreed".to_owned());
        }
        for (i, &(left, right)) in segment.sack.iter().enumerate() {
            // What lies before the stream and came all the same may be called a duplicate.
            let place = |field: u32| {
                let distance = field.wrapping_sub(self.irs.wrapping_add(self.acked as u32)) as i32;
                (self.acked as i64 + i64::from(distance)).max(1) as u64
            };
            let (left, right) = (place(left), place(right));
            if i == 0 && right == 1 {
                continue;
            }
            if left >= right {
                return Err(format!("an empty SACK block, {left} to {right}"));
            }
            // RFC 2883 4: the first block may tell of a duplicate.
            if left < self.acked && i > 0 {
                return Err(format!("SACK block {i} from {left}, acknowledged is {}", self.acked));
            }
            if !self.got.cover(left, right) {
                return Err(format!("a SACK block, {left} to {right}, of what never arrived"));
            }
        }
        Ok(())
    }

    fn check_stamps(&mut self, segment: &Segment<'_>, honest: bool, blurred: bool) -> Result<(), String> {
        let Some((value, echo)) = segment.timestamps else {
            // Whoever leaves them out of an answer to a cookie has not agreed to them.
            return if self.stamps && honest {
                Err("a segment without the timestamps agreed".to_owned())
            } else {
                Ok(())
            };
        };
        if !self.stamps && honest {
            return Err("timestamps that were not agreed".to_owned());
        }
        let place = position(segment.seq, self.iss, self.furthest).unwrap_or(self.furthest);
        let last = place + segment.payload.len() as u64 + u64::from(segment.flags & FIN != 0);
        let stamps = self.stamp.get_or_insert_with(|| Stamps::new(value));
        let order = stamps.take(value, (place, last), self.furthest);
        // Where the text is not followed, it is not known what goes again either.
        if !blurred || place == last {
            order?;
        }
        if !blurred
            && self.peer_stamps.len() < 2048
            && !self.peer_stamps.is_empty()
            && !self.peer_stamps.contains(&echo)
        {
            return Err(format!("echoed the timestamp {echo}, which never came"));
        }
        Ok(())
    }

    /// RFC 9293 3.8.6: a window that was offered is not taken back.
    fn check_window(&mut self, segment: &Segment<'_>) -> Result<(), String> {
        let edge = self.acked + (u64::from(segment.window) << self.our_shift);
        let rounded = (1 << self.our_shift) - 1;
        if edge + rounded < self.edge {
            return Err(format!("took the window back from {} to {edge}", self.edge));
        }
        self.edge = self.edge.max(edge);
        Ok(())
    }

    fn check_text(
        &mut self,
        now: Instant,
        segment: &Segment<'_>,
        offload: TxOffload,
        terms: &Terms,
        honest: bool,
    ) -> Result<(), String> {
        let Some(seq) = position(segment.seq, self.iss, self.furthest) else {
            return Err("a sequence number from nowhere".to_owned());
        };
        if seq > self.furthest {
            return Err(format!("sent {seq} before what lies from {} on", self.furthest));
        }
        let len = segment.payload.len() as u64;
        let fin = segment.flags & FIN != 0;
        if len == 0 && !fin {
            // A strict peer drops it there, acknowledgement and all (Linux: `tcp_acceptable_seq`).
            return match honest && terms.direct && seq > self.peer_edge {
                true => Err(format!("an acknowledgement at {seq}, beyond the window's edge {}", self.peer_edge)),
                false => Ok(()),
            };
        }
        let end = seq + len;
        self.check_size(segment, offload)?;
        // One byte beyond is a probe (RFC 9293 3.8.6.1).
        if end > self.peer_edge && (len > 1 || seq > self.peer_edge) {
            return Err(format!("text up to {end} beyond the window's edge {}", self.peer_edge));
        }
        let last = end + u64::from(fin);
        match self.fin_at {
            Some(at) if last > at + 1 || fin && end != at => {
                return Err(format!("text up to {end}{} behind the FIN at {at}", if fin { " and FIN" } else { "" }));
            }
            _ => self.fin_at = self.fin_at.or(fin.then_some(end)),
        }
        if honest && terms.direct && last <= self.una {
            return Err(format!("sent {seq} to {last} again, acknowledged is {}", self.una));
        }
        self.furthest = self.furthest.max(last);
        self.data_at = now;
        // Text in front of a FIN goes again with it as long as the FIN is not reported, in as many segments as that takes today.
        let with_fin = self.fin_at.is_some_and(|at| self.sacked.cover(seq, at));
        self.pieces += 1;
        // Where a flight consists of crumbs, what is reported of it is not remembered crumb by crumb (RFC 2018 8 lets it).
        let crowded = self.pieces > RUNS;
        if honest && terms.direct && !fin && !with_fin && !crowded && self.sacked.cover(seq, end) {
            return Err(format!("sent {seq} to {end} again, which the peer has reported to have"));
        }
        // What is reported leaves room for as much, and where segments change places the window grows by it (Linux:
        // `tcp_may_raise_cwnd`).
        let flight = (self.furthest - 1).saturating_sub(2 * self.sacked.count());
        if self.una <= 1 && flight > (INITIAL_SEGMENTS + self.idle_acks) * self.mss as u64 + 1 {
            return Err(format!("{flight} bytes before the first acknowledgement"));
        }
        Ok(())
    }

    fn check_size(&self, segment: &Segment<'_>, offload: TxOffload) -> Result<(), String> {
        let payload = offload.segment_size.map_or(segment.payload.len(), usize::from);
        let options = segment.options_len();
        // RFC 6691 5.1: what options take, the payload has not.
        if payload + options > self.mss && payload > 1 {
            return Err(format!("{payload} bytes and {options} of options in a segment of {} at most", self.mss));
        }
        Ok(())
    }

    pub(super) fn due_since(&self) -> Option<Instant> {
        self.due_since
    }

    pub(super) fn late(&self, now: Instant, within_us: u64) -> Option<String> {
        let since = self.due_since.filter(|&at| now.micros_since(at) > within_us)?;
        Some(format!("text that came in order at {since:?} is not acknowledged"))
    }
}

/// The position next to `near` that `field` stands for, where `origin` is the field of position 0.
fn position(field: u32, origin: u32, near: u64) -> Option<u64> {
    let distance = field.wrapping_sub(origin.wrapping_add(near as u32)) as i32;
    near.checked_add_signed(i64::from(distance))
}
