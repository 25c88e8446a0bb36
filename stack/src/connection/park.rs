//! A connection at rest is taken apart into what must be remembered of it ([`Resting`]), and put together again.
//!
//! It begins its offsets anew when it wakes: offset 0 is the next byte in either direction, as after a handshake.

use super::acks::Acks;
use super::ecn::Ecn;
use super::path::Path;
use super::patience::Waiting;
use super::receive::Receive;
use super::window::Window;
use super::{Connection, Parts, Transmit, Wishes, World, link_mss};
use crate::Instant;
use crate::app::Patience;
use crate::limits::{CHALLENGE_GAP_US, RX_SHIFT};
use crate::parked::Resting;
use crate::recovery::{Sender, Setup};
use crate::timestamps::{self, Timestamps};
use crate::wire::Template;

/// How much longer ago than the last segment the peer's timestamp may have been taken, microseconds: only one of the two
/// instants is remembered, and PAWS has to end after 24 days.
const STAMP_LAG_US: u64 = 3_600_000_000;

impl<S> Connection<S> {
    /// When it has been silent for long enough to be parked.
    #[inline]
    pub(crate) fn quiet_at(&self) -> Instant {
        self.waiting.quiet_at()
    }

    /// How long nothing acceptable has come, microseconds.
    #[inline]
    pub(crate) fn silence_us(&self, now: Instant) -> u64 {
        now.micros_since(self.waiting.heard_at())
    }

    /// Whether the peer has not said anything since it came, or woke.
    pub(crate) fn is_mute(&self) -> bool {
        self.rx.next == 0
    }

    /// It could not be parked: it is tried again later.
    pub(crate) fn refuse_to_park(&mut self, now: Instant) {
        self.waiting.refuse_to_park(now);
    }

    /// What its application keeps.
    pub(crate) fn session(&self) -> Option<&S> {
        self.session.as_ref()
    }

    /// What must be remembered of it while nothing happens; `None`: something is going on. What the application keeps is not
    /// in it.
    pub(crate) fn rest(&self, now: Instant) -> Option<Resting> {
        let (rx, tx) = (&self.rx, &self.tx);
        let ended = tx.shutdown || tx.fin_sent || rx.finished || self.wishes.abort;
        let owes = tx.blocked || rx.ack_due() || rx.acks.deadline.is_some() || rx.acked != rx.next || rx.owes_report();
        let holds = !tx.store.is_empty() || !rx.is_settled();
        if self.listed || self.wishes.ready || ended || owes || holds || !self.waiting.is_calm() {
            return None;
        }
        // A peer that draws challenges faster than they may be sent must not find that forgotten.
        if self.path.is_unproven() || now.micros_since(self.challenged_at) < CHALLENGE_GAP_US {
            return None;
        }
        let heard = self.waiting.heard_at();
        let asks = self.waiting.asks_at();
        if self.wishes.wake_at.is_some_and(|at| at <= now) || asks.is_some_and(|(at, _)| at <= now) {
            return None;
        }
        let lags = |stamps: &Timestamps| heard.micros_since(stamps.recent_at()) > STAMP_LAG_US;
        if self.stamps.as_ref().is_some_and(lags) {
            return None;
        }
        let (mac, tags) = self.template.destination();
        let tci = match *tags {
            [] => None,
            [0x81, 0x00, high, low] => Some(u16::from_be_bytes([high, low])),
            _ => return None,
        };
        Some(Resting {
            key: self.key,
            snd_nxt: tx.seq(tx.sender.nxt()),
            rcv_nxt: rx.seq(rx.next),
            window: tx.sender.window(),
            peer_shift: rx.window.scales().then_some(tx.peer_shift),
            peer_mss: self.path.peer_mss(),
            sack: rx.sack_permitted(),
            ecn: self.ecn.parts(),
            recent: self.stamps.as_ref().map(Timestamps::recent),
            history: tx.sender.history(heard)?,
            room: rx.room(),
            space: rx.window.space(),
            mac,
            tci,
            heard,
            asks,
            wake_at: self.wishes.wake_at,
            token: 0,
        })
    }

    /// Puts a connection together from what was remembered. `offset` is that of its timestamps.
    pub(crate) fn resume(
        now: Instant,
        world: &mut World,
        parts: Parts,
        rest: &Resting,
        offset: u32,
        patience: &Patience,
        session: S,
    ) -> Self {
        let (unit, store) = parts;
        let options = if rest.recent.is_some() { timestamps::OPTION_LEN as u16 } else { 0 };
        let (path, mss) = Path::new(now, world, &rest.key, rest.peer_mss, options);
        let acks = Acks::new(link_mss(&world.caps, &rest.key));
        let shift = if rest.peer_shift.is_some() { RX_SHIFT } else { 0 };
        let full = acks.full_segment();
        let window = Window::resumed(now, shift, rest.history.srtt_us, full, rest.room, rest.space);
        let peer_window = u64::from(rest.window);
        let setup =
            Setup { mss: usize::from(mss), window: peer_window, sack: rest.sack, algorithm: rest.history.algorithm };
        Connection {
            key: rest.key,
            listed: false,
            believed: false,
            rx: Receive::new(rest.rcv_nxt, rest.sack, window, acks),
            tx: Transmit {
                store,
                sender: Sender::resumed(&setup, &rest.history, rest.heard),
                base: rest.snd_nxt,
                machine_ack: None,
                mss,
                peer_shift: rest.peer_shift.unwrap_or(0),
                wl1: rest.rcv_nxt,
                wl2: rest.snd_nxt,
                max_window: peer_window,
                shutdown: false,
                fin_sent: false,
                fin_acked: false,
                blocked: false,
            },
            path,
            wishes: Wishes { wake_at: rest.wake_at, ..Wishes::default() },
            stamps: rest.recent.map(|tsval| Timestamps::new(rest.heard, offset, tsval)),
            ecn: Ecn::from_parts(rest.ecn),
            template: Template::new(&rest.link(world.caps.mac), &rest.key),
            unit,
            session: Some(session),
            fin_wait_2_ends: None,
            unread_ends: None,
            waiting: Waiting::new(rest.heard, patience, world.park_after_us),
            challenged_at: Instant::ZERO,
        }
    }
}
