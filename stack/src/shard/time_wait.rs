//! From connection to TIME-WAIT, and back (RFC 9293 3.6.1, RFC 6191, RFC 1337).

use super::half_open::Stand;
use super::{Flow, Shard};
use crate::app::App;
use crate::limits::TIMERS_PER_TURN;
use crate::timestamps::is_old_duplicate;
use crate::timewait::TimeWait;
use crate::wire::{LinkView, Segment, TcpOptions, tcp_options};
use crate::{Instant, Queue};

/// TIME-WAIT must not be entered again with numbers the old connection used: this far beyond them a new one starts. More
/// than the largest window, so that nothing old falls into the new one's.
const STEP: u32 = 65_536 * 128;

impl<A: App, Q: Queue> Shard<A, Q> {
    /// A segment of a flow in TIME-WAIT (RFC 9293 3.10.7.4; RFC 1337: resets are ignored).
    pub(super) fn on_time_wait(
        &mut self,
        now: Instant,
        queue: &mut Q,
        position: u32,
        link: &LinkView,
        segment: &Segment,
        bytes: &[u8],
    ) {
        let record = *self.time_wait.record(position);
        let flags = segment.flags;
        if flags.rst() {
            self.world.counters.gate_rst_outside += 1;
            return;
        }
        let said = tcp_options(segment.header(bytes));
        // PAWS goes on behind the connection's end.
        let old = is_old_duplicate(record.stamps.as_ref(), now, &said);
        if !old && flags.syn() && !flags.ack() && may_reopen(&record, segment, &said) {
            self.forget_flow(position, &record);
            self.time_wait.remove(position);
            let iss = self.isn.isn(now, &segment.key);
            let beyond = record.snd_nxt.wrapping_add(STEP);
            let iss = if iss.wrapping_sub(record.snd_nxt) as i32 > 0 { iss } else { beyond };
            return self.accept_syn(now, queue, link, segment, bytes, iss);
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

    /// Remembers a connection that we closed first.
    pub(super) fn enter_time_wait(&mut self, now: Instant, record: TimeWait) {
        if let Some((oldest, old)) = self.time_wait.oldest_if_full() {
            self.world.counters.time_wait_evicted += 1;
            self.forget_flow(oldest, &old);
        }
        self.put_into_time_wait(now, record);
        self.world.counters.time_wait_entered += 1;
    }

    /// Forgets those whose time is over; at most so many in a turn.
    pub(super) fn on_time_wait_timers(&mut self, now: Instant) {
        for _ in 0..TIMERS_PER_TURN {
            let Some((position, record)) = self.time_wait.pop_expired(now) else { return };
            self.forget_flow(position, &record);
            if record.stays() {
                self.put_into_time_wait(now, record.again());
            }
        }
    }

    fn put_into_time_wait(&mut self, now: Instant, record: TimeWait) {
        let hash = self.flows.hash(&record.key);
        let position = self.time_wait.insert(now, record);
        if self.flows.insert(hash, Flow::TimeWait(position).pack()).is_err() {
            self.time_wait.remove(position);
        }
    }

    fn forget_flow(&mut self, position: u32, record: &TimeWait) {
        let hash = self.flows.hash(&record.key);
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
