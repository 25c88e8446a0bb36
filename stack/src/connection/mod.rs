//! One established connection: the gate, the byte store, the session, and smoltcp behind them.
//!
//! The gate owns everything that appears on the wire, in both directions. Two number spaces meet here: sequence numbers
//! (32 bits, wrapping) on the wire, and stream offsets (64 bits, from 0 at the first payload byte, the FIN counted) inside.

mod acks;
mod behind;
mod close;
mod ecn;
mod gate;
mod output;
mod park;
mod path;
mod patience;
mod receive;
mod stream;
mod text;
mod window;

use crate::app::{App, Patience};
use crate::limits::{RX_SHIFT, STORE_MAX, STORE_RETRY_US};
use crate::machine::{Machine, Unit};
use crate::pmtu::PmtuCache;
use crate::reassembly::HoldPool;
use crate::recovery::{Algorithm, Sender, Setup};
use crate::store::{BlockPool, Store};
use crate::syn::SynRecord;
use crate::timestamps::{self, Timestamps};
use crate::timewait::TimeWait;
use crate::wire::Template;
use crate::{Caps, CloseReason, Counters, FlowKey, Instant, Queue};

use acks::Acks;
use ecn::Ecn;
use path::Path;
use patience::Waiting;
use receive::Receive;
use window::Window;

/// What the connections of a shard share.
pub(crate) struct World {
    pub(crate) machine: Machine,
    pub(crate) pool: BlockPool,
    /// What has been received and not handed on.
    pub(crate) hold: HoldPool,
    /// Largest receive window, bytes.
    pub(crate) rx_window_max: usize,
    pub(crate) counters: Counters,
    pub(crate) caps: Caps,
    /// Of connections to come.
    pub(crate) algorithm: Algorithm,
    /// Silence after which a connection is parked, microseconds; `None`: none ever is.
    pub(crate) park_after_us: Option<u64>,
    pub(crate) pmtu: PmtuCache,
    /// Where a segment with IP options or extension headers is rebuilt without them.
    pub(crate) plain: Box<[u8]>,
}

/// What a connection may use while it works: time, frames, and the shard's common things.
pub(crate) struct Env<'a, Q: Queue> {
    pub(crate) now: Instant,
    pub(crate) queue: &'a mut Q,
    /// A frame being written lives here, so that a panic does not lose it.
    pub(crate) frame: &'a mut Option<Q::Frame>,
    pub(crate) world: &'a mut World,
}

/// Whether a connection goes on.
#[derive(Clone, Copy, PartialEq, Eq, Debug)]
#[must_use]
pub(crate) enum Fate {
    /// It goes on.
    Live,
    /// It is over; what must be said of it on the wire has been said.
    Over(CloseReason),
}

/// The sending half.
struct Transmit {
    store: Store,
    sender: Sender,
    /// Sequence number of stream offset 0.
    base: u32,
    /// The acknowledgement number that smoltcp expects: it never sees us send more than a FIN. `None`: it has not heard of the
    /// connection yet, since nothing was left for it to do (`behind`).
    machine_ack: Option<u32>,
    /// Largest payload of a segment, bytes: what the peer takes and what the link carries.
    mss: u16,
    /// Shift of the windows that the peer sends (RFC 7323).
    peer_shift: u8,
    /// Sequence and acknowledgement number of the segment that last set the peer's window (RFC 9293 3.10.7.4).
    wl1: u32,
    wl2: u32,
    /// Largest window that the peer ever offered, bytes: how far an old acknowledgement may lie back (RFC 5961 5.2).
    max_window: u64,
    /// The application has ended its stream.
    shutdown: bool,
    fin_sent: bool,
    fin_acked: bool,
    /// No frame was free: go on in the next turn.
    blocked: bool,
}

impl Transmit {
    #[inline]
    fn seq(&self, offset: u64) -> u32 {
        self.base.wrapping_add(offset as u32)
    }
}

/// The application's side: what it waits for.
#[derive(Default)]
struct Wishes {
    wake_at: Option<Instant>,
    /// It asked for room and got less than it could use.
    short_of_room: core::cell::Cell<bool>,
    /// Send room at the end of the last callback that fell short of it, bytes.
    room_then: usize,
    /// Bytes kept at that time.
    kept_then: u64,
    /// When it is asked again because other connections held the blocks it wanted.
    retry_at: Option<Instant>,
    /// Times it was asked so in vain.
    retries: u8,
    abort: bool,
    /// Something was consumed or written in the current callback.
    progress: bool,
    /// Something happened that the application must be told of.
    ready: bool,
}

/// An established connection.
pub(crate) struct Connection<S> {
    pub(crate) key: FlowKey,
    /// Already in the list of connections to serve in this turn.
    pub(crate) listed: bool,
    /// The last segment passed the gate: what its link layer says of the peer may be believed.
    pub(crate) believed: bool,
    rx: Receive,
    tx: Transmit,
    path: Path,
    wishes: Wishes,
    /// Of both ends, where the handshake agreed on them (RFC 7323).
    stamps: Option<Timestamps>,
    ecn: Ecn,
    template: Template,
    unit: Unit,
    session: Option<S>,
    /// When a peer that owes us a FIN is given up.
    fin_wait_2_ends: Option<Instant>,
    /// When an application that does not read what came before the end is not waited for any longer.
    unread_ends: Option<Instant>,
    waiting: Waiting,
    challenged_at: Instant,
}

/// What is reused when a connection is over.
pub(crate) type Parts = (Unit, Store);

impl<S> Connection<S> {
    /// Brings a connection to life from its handshake. `window` is the one of the handshake's ACK, as it stood on the wire.
    pub(crate) fn establish(
        now: Instant,
        world: &mut World,
        parts: Parts,
        syn: &SynRecord,
        window: u16,
        patience: &Patience,
        session: S,
    ) -> Self {
        let (unit, store) = parts;
        let peer_shift = syn.peer_shift.unwrap_or(0);
        let window = u64::from(window) << peer_shift;
        // What the option takes of each segment (RFC 6691).
        let options = if syn.stamps.is_some() { timestamps::OPTION_LEN as u16 } else { 0 };
        let (path, mss) = Path::new(now, world, &syn.key, syn.peer_mss, options);
        let our_mss = link_mss(&world.caps, &syn.key);
        let rx_shift = if syn.peer_shift.is_some() { RX_SHIFT } else { 0 };
        let rx_window = Window::new(now, rx_shift, syn.round_trip_us(now), u64::from(our_mss));
        let base = syn.iss.wrapping_add(1);
        let setup = Setup { mss: usize::from(mss), window, sack: syn.sack, algorithm: world.algorithm };
        let mut sender = Sender::new(&setup);
        if syn.was_lost() {
            sender.handshake_was_lost();
        } else if let Some(rtt_us) = syn.round_trip_us(now) {
            sender.seed_rtt(now, rtt_us);
        }
        Connection {
            key: syn.key,
            listed: false,
            believed: false,
            rx: Receive::new(syn.irs.wrapping_add(1), syn.sack, rx_window, Acks::new(our_mss)),
            tx: Transmit {
                store,
                sender,
                base,
                machine_ack: None,
                mss,
                peer_shift,
                wl1: syn.irs.wrapping_add(1),
                wl2: base,
                max_window: window,
                shutdown: false,
                fin_sent: false,
                fin_acked: false,
                blocked: false,
            },
            path,
            // The application hears of the connection at once: it may have a deadline to set.
            wishes: Wishes { ready: true, ..Wishes::default() },
            stamps: syn.stamps,
            ecn: Ecn::new(syn.ecn),
            template: syn.template.clone(),
            unit,
            session: Some(session),
            fin_wait_2_ends: None,
            unread_ends: None,
            waiting: Waiting::new(now, patience, world.park_after_us),
            challenged_at: Instant::ZERO,
        }
    }

    /// Serves the application and sends what there is to send. Called once in a turn for each connection that something
    /// happened to.
    pub(crate) fn serve<Q: Queue, A: App<Session = S>>(&mut self, env: &mut Env<'_, Q>, app: &mut A) -> Fate {
        if core::mem::take(&mut self.wishes.ready) {
            self.run_app(env, app);
        }
        if self.wishes.abort {
            self.send_reset(env);
            return Fate::Over(CloseReason::Aborted);
        }
        self.flush(env);
        self.waiting.note(env.now, self.owed());
        self.after_close(env.now)
    }

    /// Whether another turn of [`serve`](Self::serve) is wanted without a new event.
    pub(crate) fn wants_service(&self) -> bool {
        self.wishes.ready || self.tx.blocked
    }

    /// Tells the application, at the next `serve`, that it should look around.
    pub(crate) fn poke(&mut self) {
        self.wishes.ready = true;
    }

    /// What is due at `now`. The application and the wire are served by the `serve` that follows.
    pub(crate) fn on_timer<Q: Queue, A: App<Session = S>>(&mut self, env: &mut Env<'_, Q>, app: &mut A) -> Fate {
        let now = env.now;
        if self.rx.acks.deadline.is_some_and(|at| at <= now) {
            self.rx.ack_now();
        }
        if self.tx.sender.deadline().is_some_and(|at| at <= now)
            && let Fate::Over(reason) = self.on_sender_timeout(env)
        {
            return Fate::Over(reason);
        }
        if self.waiting.deadline(self.is_orphan()) <= now
            && let Fate::Over(reason) = self.on_silence(env)
        {
            return Fate::Over(reason);
        }
        if self.fin_wait_2_ends.is_some_and(|at| at <= now) {
            self.send_reset(env);
            return Fate::Over(CloseReason::TimedOut);
        }
        if self.wishes.wake_at.is_some_and(|at| at <= now) {
            self.wishes.wake_at = None;
            self.with_app(env, &[], |session, stream, now| app.expired(now, session, stream));
            self.wishes.ready |= self.wants_more();
        }
        if self.wishes.retry_at.is_some_and(|at| at <= now) {
            self.wishes.retry_at = None;
            self.wishes.ready = true;
        }
        Fate::Live
    }

    /// The earliest instant at which [`on_timer`](Self::on_timer) has something to do.
    pub(crate) fn deadline(&self) -> Option<Instant> {
        // Folded by hand: an iterator over options costs a hundred instructions, for each connection served.
        let or_never = |at: Option<Instant>| at.unwrap_or(Instant::FAR_FUTURE);
        let ours = or_never(self.tx.sender.deadline()).min(or_never(self.rx.acks.deadline));
        let asked = or_never(self.wishes.wake_at).min(or_never(self.wishes.retry_at));
        let silence = self.waiting.deadline(self.is_orphan()).min(self.waiting.quiet_at());
        let at = ours.min(asked).min(or_never(self.fin_wait_2_ends)).min(or_never(self.unread_ends)).min(silence);
        (at != Instant::FAR_FUTURE).then_some(at)
    }

    fn run_app<Q: Queue, A: App<Session = S>>(&mut self, env: &mut Env<'_, Q>, app: &mut A) {
        for _ in 0..crate::limits::READY_PASSES {
            self.with_app(env, &[], |session, stream, now| app.ready(now, session, stream));
            if !self.wants_more() {
                return;
            }
        }
        self.wishes.ready = true;
    }

    /// Whether the application is called again without an event: it got on, and bytes are still unread.
    fn wants_more(&self) -> bool {
        self.wishes.progress && !self.wishes.abort && self.rx.unread() > 0
    }

    /// Remembers how much room there was for an application that could use more. One that got no block because others
    /// hold them all has nothing in flight that would wake it.
    #[cold]
    fn note_short_of_room(&mut self, now: Instant, pool: &BlockPool) {
        let store = &self.tx.store;
        self.wishes.room_then = store.room(pool);
        self.wishes.kept_then = store.len();
        self.wishes.retries = if self.wishes.progress { 0 } else { self.wishes.retries.saturating_add(1) };
        if store.is_empty() && pool.free() < pool.blocks() {
            // It may merely have looked, and all who looked must not come back a hundred times a second.
            self.wishes.retry_at = Some(now.plus_micros(STORE_RETRY_US << self.wishes.retries.min(6)));
        }
    }

    /// Whether acknowledgements have made enough room for an application that fell short of it: a good part of a store, or
    /// half of what was kept.
    fn has_more_room(&self, pool: &BlockPool) -> bool {
        let store = &self.tx.store;
        store.len() <= self.wishes.kept_then / 2 || store.room(pool) >= self.wishes.room_then + STORE_MAX / 4
    }

    /// The session, for its last call.
    pub(crate) fn take_session(&mut self) -> Option<S> {
        self.session.take()
    }

    /// Ends the connection: what can be used again.
    pub(crate) fn dissolve(mut self, world: &mut World) -> Parts {
        self.tx.store.clear(&mut world.pool);
        self.rx.held.clear(&mut world.hold);
        if self.tx.machine_ack.is_some() {
            self.unit.recycle();
        }
        (self.unit, self.tx.store)
    }

    /// Whether a frame came over another link layer than ours go to.
    #[inline]
    pub(crate) fn link_differs(&self, link: &crate::wire::LinkView) -> bool {
        self.template.link_differs(link)
    }

    /// Sends what follows over another link layer.
    pub(crate) fn set_link(&mut self, link: &crate::wire::LinkHeader) {
        self.template.set_link(link);
    }

    /// What TIME-WAIT remembers.
    pub(crate) fn remains(&self) -> TimeWait {
        TimeWait::new(self.key, self.tx.seq(self.tx.sender.nxt()), self.rx.seq(self.rx.next), self.stamps)
    }
}

/// Largest TCP payload that fits the link without options, bytes.
pub(crate) fn link_mss(caps: &Caps, key: &FlowKey) -> u16 {
    path::mss_of(caps.mtu.min(usize::from(u16::MAX)) as u16, key)
}
