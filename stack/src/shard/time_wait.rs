//! From connection to TIME-WAIT, and back (RFC 9293 3.6.1, RFC 6191, RFC 1337).

use super::half_open::Stand;
use super::{Flow, Shard};
use crate::app::App;
use crate::limits::TIMERS_PER_TURN;
use crate::timestamps::is_old_duplicate;
use crate::timewait::TimeWait;
use crate::wire::{LinkView, Segment, TcpOptions, tcp_options};
use crate::{FlowKey, Instant, Queue};

/// TIME-WAIT must not be entered again with numbers the old connection used: this far beyond them a new one starts. More
/// than the largest window, so that nothing old falls into the new one's.
const STEP: u32 = 65_536 * 128;

/// A flow in TIME-WAIT that may start a new life.
#[derive(Clone, Copy, Debug)]
pub(super) struct OldFlow {
    position: u32,
    snd_nxt: u32,
}

impl OldFlow {
    /// Whether a connection that starts with `iss` has its numbers beyond the old one's.
    pub(super) fn is_below(self, iss: u32) -> bool {
        iss.wrapping_sub(self.snd_nxt) as i32 > 0
    }

    /// `iss`, or a number beyond the old ones.
    pub(super) fn beyond(self, iss: u32) -> u32 {
        if self.is_below(iss) { iss } else { self.snd_nxt.wrapping_add(STEP) }
    }
}

impl<A: App, Q: Queue> Shard<A, Q> {
    /// A segment of a flow in TIME-WAIT (RFC 9293 3.10.7.4; RFC 1337: resets are ignored).
    #[allow(clippy::too_many_arguments)] // a hop of the frame's way
    pub(super) fn on_time_wait(
        &mut self,
        now: Instant,
        queue: &mut Q,
        app: &mut A,
        position: u32,
        link: &LinkView,
        segment: &Segment,
        bytes: &mut [u8],
    ) {
        let record = *self.time_wait.record(position);
        let old_flow = OldFlow { position, snd_nxt: record.snd_nxt };
        let flags = segment.flags;
        if flags.rst() {
            self.world.counters.gate_rst_outside += 1;
            return;
        }
        let said = tcp_options(segment.header(bytes));
        // PAWS goes on behind the connection's end.
        let old = is_old_duplicate(record.stamps.as_ref(), now, &said);
        if !old && flags.syn() && !flags.ack() && may_reopen(&record, segment, &said) {
            let flow = self.flows.hash(&segment.key);
            return self.accept_syn(now, queue, link, segment, bytes, flow, Some(old_flow));
        }
        if !old
            && old_flow.is_below(segment.ack.wrapping_sub(1))
            && let Some(new) = self.record_of_cookie(now, link, segment, bytes, Some(old_flow))
        {
            let Some(parts) = self.take_parts(now, queue, app, &new.key) else { return };
            self.leave_time_wait(old_flow, &record.key);
            return self.adopt_cookie(now, queue, app, &new, parts, link, segment, bytes);
        }
        self.world.counters.gate_paws += u64::from(old);
        // Acceptable, and nothing in it: an answer would only draw another from a peer in the same state.
        if !old && segment.seq == record.rcv_nxt && segment.sequence_len() == 0 {
            return;
        }
        // The peer has not seen our ACK of its FIN: it will need somebody to ask for as long again.
        if !old && flags.fin() && segment.seq.wrapping_add(segment.sequence_len()) == record.rcv_nxt {
            self.time_wait.stay(position);
        }
        if !self.may_say_where_we_stand(now) {
            return;
        }
        let stand = Stand { seq: record.snd_nxt, ack: record.rcv_nxt, window: u16::MAX, stamps: record.stamps };
        let template = self.template(link, segment);
        self.say_where_we_stand(now, queue, &template, &stand);
    }

    /// Remembers a connection that we closed first, which the flow table has `from` under `hash`.
    pub(super) fn enter_time_wait(&mut self, now: Instant, hash: u64, from: Flow, record: TimeWait) {
        if let Some((oldest, old)) = self.time_wait.oldest_if_full() {
            self.world.counters.time_wait_evicted += 1;
            self.forget_flow(oldest, &old.key);
            // Its slot has not been looked at for as long as a table takes to go round: no cache has it any more.
            self.flows.prefetch(self.flows.hash(self.time_wait.soon_oldest()));
        }
        let position = self.time_wait.insert(now, record);
        self.move_flow(hash, from, Flow::TimeWait(position));
        self.world.counters.time_wait_entered += 1;
    }

    /// Forgets those whose time is over; at most so many in a turn.
    pub(super) fn on_time_wait_timers(&mut self, now: Instant) {
        for _ in 0..TIMERS_PER_TURN {
            let Some((position, record)) = self.time_wait.pop_expired(now) else { return };
            if record.stays() {
                let again = self.time_wait.insert(now, record.again());
                let hash = self.flows.hash(&record.key);
                self.move_flow(hash, Flow::TimeWait(position), Flow::TimeWait(again));
            } else {
                self.forget_flow(position, &record.key);
            }
        }
    }

    /// A new connection is remembered where the old one was.
    pub(super) fn leave_time_wait(&mut self, old: OldFlow, key: &FlowKey) {
        self.forget_flow(old.position, key);
        self.time_wait.remove(old.position);
    }

    fn forget_flow(&mut self, position: u32, key: &FlowKey) {
        let hash = self.flows.hash(key);
        self.flows.remove(hash, Flow::TimeWait(position).pack());
    }
}

/// RFC 9293 3.10.7.4, RFC 6191: a SYN beyond the old numbers, or with a later timestamp, may open the flow anew.
fn may_reopen(record: &TimeWait, segment: &Segment, said: &TcpOptions) -> bool {
    let later = match (&record.stamps, said.timestamps) {
        (Some(stamps), Some((tsval, _))) => tsval != stamps.recent(),
        _ => false,
    };
    later || segment.seq.wrapping_sub(record.rcv_nxt) as i32 >= 0
}
