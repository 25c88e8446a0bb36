//! One core's world: flows, connections, listeners, timers, buffers, counters.
//!
//! A shard shares nothing with the others but the stray rings. It is driven by [`Shard::turn`]: one call takes a burst
//! of frames in, serves the connections that something happened to, and puts frames out.

mod complaints;
mod cost;
mod ends;
mod half_open;
mod handshake;
mod ingress;
mod lifecycle;
mod parking;
mod prune;
mod slab;
mod time_wait;

use core::net::IpAddr;

use crate::app::{App, Listener};
use crate::connection::{Connection, World};
use crate::cookie::Cookies;
use crate::flow::FlowTable;
use crate::fragments::Fragments;
use crate::isn::IsnSource;
use crate::limiter::Limiter;
use crate::limits::{self, Limits, RX_BUFFER, RX_WINDOW_MAX, STRAYS_PER_TURN, TIMERS_PER_TURN, WHOLE_BURSTS_MAX};
use crate::machine::Machine;
use crate::parked::Parked;
use crate::pmtu::PmtuCache;
use crate::queue::BURST;
use crate::reassembly::HoldPool;
use crate::recovery::Algorithm;
use crate::sources::Sources;
use crate::store::BlockPool;
use crate::stray::StrayLink;
use crate::syn::SynTable;
use crate::timewait::TimeWaitTable;
use crate::wheel::Wheel;
use crate::wire::{Addresses, Responder, ResponderConfig};
use crate::{Caps, CloseReason, Counters, FlowKey, Frame, Instant, Queue, TxOffload};

use ingress::Staged;
use slab::Slab;

pub use cost::{Part, cost};

/// How a shard is set up.
pub struct ShardConfig {
    /// What is listened on; every address that is ours counts.
    pub listeners: Vec<Listener>,
    /// Which addresses are ours.
    pub addresses: Addresses,
    /// Routers for peers outside our prefixes; at most one for each family is used.
    pub gateways: Vec<IpAddr>,
    /// What this shard may hold.
    pub limits: Limits,
    /// Random bytes that nobody else knows; the same for all shards of a server.
    pub secret: [u8; 32],
    /// The way to the other shards, if there are any.
    pub strays: Option<StrayLink>,
}

/// What came of a turn.
#[derive(Clone, Copy, PartialEq, Eq, Debug)]
pub struct Turn {
    /// Frames came in, or something is left to do at once: do not sleep.
    pub busy: bool,
    /// When the next turn is needed even if no frame comes.
    pub deadline: Option<Instant>,
}

/// One core's world. `A` is the application, `Q` where its frames come from.
pub struct Shard<A: App, Q: Queue> {
    world: World,
    flows: FlowTable,
    live: Slab<Connection<A::Session>>,
    parked: Parked,
    /// Where the search for one to park goes on.
    park_hand: u32,
    /// Every parked connection is to be woken: from this place on.
    rousing: Option<usize>,
    /// For segments that the gate will stop.
    wake_limit: Limiter,
    wheel: Wheel,
    syn: SynTable,
    limits: Limits,
    half_open_by: Sources,
    /// Only where the number of one source's connections is limited.
    live_by: Option<Sources>,
    time_wait: TimeWaitTable,
    responder: Responder,
    listeners: Vec<Listener>,
    /// Our addresses are the kernel's too.
    shared: bool,
    isn: IsnSource,
    cookies: Cookies,
    strays: Option<StrayLink>,
    fragments: Fragments,
    rst_limit: Limiter,
    /// For ACKs that no connection sends.
    ack_limit: Limiter,
    /// The connection that is asked next to give up text that waits behind a hole.
    hand: u32,
    /// Connections that something happened to in this turn.
    touched: Vec<u32>,
    /// Connections that want another turn without an event.
    pending: Vec<u32>,
    burst: Vec<Q::Frame>,
    /// Bursts in a row that were as large as they may be, after which there may be more in the ring.
    whole_bursts: u32,
    /// What is known of the frames of a burst.
    staged: Vec<Staged>,
    frame: Option<Q::Frame>,
    draining: bool,
    /// Only where somebody watches.
    ends: Option<Vec<(FlowKey, CloseReason)>>,
    /// Connections that ended since the last turn began.
    ended: u32,
}

/// Which table a value of the flow table leads to; the rest is the position there.
#[derive(Clone, Copy, PartialEq, Eq, Debug)]
enum Flow {
    Live(u32),
    Syn(u32),
    TimeWait(u32),
    Parked(u32),
}

const KIND_SHIFT: u32 = 30;
const KIND_POSITION: u32 = (1 << KIND_SHIFT) - 1;

impl Flow {
    #[inline]
    fn unpack(value: u32) -> Flow {
        let position = value & KIND_POSITION;
        match value >> KIND_SHIFT {
            0 => Flow::Live(position),
            1 => Flow::Syn(position),
            2 => Flow::TimeWait(position),
            _ => Flow::Parked(position),
        }
    }

    #[inline]
    fn pack(self) -> u32 {
        match self {
            Flow::Live(position) => position,
            Flow::Syn(position) => position | 1 << KIND_SHIFT,
            Flow::TimeWait(position) => position | 2 << KIND_SHIFT,
            Flow::Parked(position) => position | 3 << KIND_SHIFT,
        }
    }
}

impl<A: App, Q: Queue> Shard<A, Q> {
    /// Sets aside all memory that `config.limits` allows; nothing is allocated for a packet later.
    pub fn new(config: ShardConfig, caps: Caps) -> Self {
        let limits = config.limits;
        let seed = |at: usize| {
            let bytes = config.secret[at..at + 8].first_chunk().copied().unwrap_or_default();
            u64::from_le_bytes(bytes)
        };
        let mut isn_secret = [0u8; 16];
        isn_secret.copy_from_slice(&config.secret[..16]);
        let (shard, shards) = config.strays.as_ref().map_or((0, 1), |strays| (strays.shard(), strays.shards()));
        let isn = IsnSource::new(&isn_secret).of_shard(shard, shards);
        let nobody = FlowKey::v4([0; 4], [0; 4], 0, 0);
        let flows = limits.connections + limits.syn_backlog + limits.time_wait;
        Shard {
            world: World {
                machine: Machine::new(seed(16) ^ seed(24)),
                pool: BlockPool::new(limits.store_blocks),
                hold: HoldPool::new(limits.hold_blocks),
                rx_window_max: limits.rx_window_max.clamp(RX_BUFFER, RX_WINDOW_MAX),
                counters: Counters::default(),
                caps,
                algorithm: Algorithm::default(),
                park_after_us: limits.park_after_us,
                pmtu: PmtuCache::new([seed(8), seed(24)]),
                plain: vec![0; 65_536 + 64].into(),
            },
            flows: FlowTable::new(flows, [seed(16), seed(24)]),
            live: Slab::new(&limits),
            parked: Parked::new(if limits.park_after_us.is_some() { limits.connections } else { 0 }),
            park_hand: 0,
            rousing: None,
            wake_limit: Limiter::new(limits::DOUBTFUL_WAKES_PER_S, isn.tag(&nobody, [4, 0])),
            wheel: Wheel::new(limits.units()),
            syn: SynTable::new(limits.syn_backlog),
            half_open_by: Sources::new(limits.syn_backlog, &isn_secret),
            live_by: (limits.per_source > 0).then(|| Sources::new(limits.connections, &isn_secret)),
            limits,
            time_wait: TimeWaitTable::new(limits.time_wait),
            shared: matches!(config.addresses, Addresses::Shared),
            responder: Responder::new(ResponderConfig {
                mac: caps.mac,
                addresses: config.addresses,
                gateways: config.gateways,
                echo_limit_per_s: limits::ECHO_REPLIES_PER_S,
            }),
            listeners: config.listeners,
            cookies: Cookies::new(isn.clone(), shard, limits.time_wait),
            isn: isn.clone(),
            strays: config.strays,
            fragments: Fragments::new(isn.tag(&nobody, [1, 0]) as u32),
            rst_limit: Limiter::new(limits::RST_PER_S, isn.tag(&nobody, [2, 0])),
            ack_limit: Limiter::new(limits::BARE_ACKS_PER_S, isn.tag(&nobody, [3, 0])),
            hand: 0,
            touched: Vec::with_capacity(limits.units().min(4096)),
            pending: Vec::with_capacity(limits.units().min(4096)),
            burst: Vec::with_capacity(BURST),
            whole_bursts: 0,
            staged: Vec::with_capacity(BURST),
            frame: None,
            draining: false,
            ends: None,
            ended: 0,
        }
    }

    /// Takes in a burst, serves what it touched and what is due, sends what is to be sent.
    pub fn turn(&mut self, now: Instant, queue: &mut Q, app: &mut A) -> Turn {
        queue.begin();
        queue.on_turn(now, core::mem::take(&mut self.ended));
        let exhausted = self.world.counters.tx_exhausted;
        let mut burst = core::mem::take(&mut self.burst);
        let received = queue.rx_burst(&mut burst, BURST);
        self.world.counters.rx_frames += received as u64;
        self.on_burst(now, queue, app, &mut burst);
        self.burst = burst;
        let strays = self.take_strays(now, queue, app);
        // Timers take silence for loss, and what still lies in the ring is no silence: a loop that was held up would send again
        // what has been acknowledged long ago. So they wait while frames come in whole bursts, but not for ever.
        self.whole_bursts = if received == BURST { (self.whole_bursts + 1) % WHOLE_BURSTS_MAX } else { 0 };
        if self.whole_bursts == 0 {
            self.on_timers(now, queue, app);
        }
        let rousing = self.rouse(now, queue, app);
        self.serve_touched(now, queue, app);
        if self.world.hold.take_want() {
            self.prune(now);
        }
        self.send_own(now, queue);
        queue.end();
        let mut busy = received > 0 || strays > 0 || !self.pending.is_empty() || rousing;
        let mut deadline = self.deadline();
        if self.rousing.is_some() {
            let retry = now.plus_micros(limits::RETRY_ROUSE_US);
            deadline = Some(deadline.map_or(retry, |at| at.min(retry)));
        }
        if received + strays == 0 && self.world.counters.tx_exhausted > exhausted {
            // Whatever is left to do, overdue or not, cannot be done before a frame comes back from the device: a loop that
            // asked again and again would burn its core on that.
            (busy, deadline) = (false, Some(now.plus_micros(limits::RETRY_TX_US)));
        }
        Turn { busy, deadline }
    }

    /// Calls the application for every live connection in the next turn, and for the parked ones in those that follow: for one
    /// that has learnt something from elsewhere than its connections.
    pub fn wake_all(&mut self) {
        self.rousing = Some(0);
        for id in self.live.ids() {
            self.live.with(id, |c| c.poke());
            self.touch(id);
        }
    }

    /// Stops accepting and tells the application; live connections go on until they end, or until
    /// [`abort_all`](Self::abort_all).
    pub fn drain(&mut self, now: Instant, queue: &mut Q, app: &mut A) {
        if core::mem::replace(&mut self.draining, true) {
            return;
        }
        app.draining();
        queue.begin();
        self.wake_all();
        self.serve_touched(now, queue, app);
        queue.end();
    }

    /// Resets every connection.
    pub fn abort_all(&mut self, now: Instant, queue: &mut Q, app: &mut A) {
        queue.begin();
        for id in self.live.ids() {
            self.reset(now, queue, app, id, CloseReason::Drained);
        }
        self.abort_parked(now, queue, app);
        queue.end();
    }

    /// The link now carries IP packets of `mtu` bytes at most (see [`Caps::mtu`]): connections follow with what they send next.
    pub fn set_mtu(&mut self, now: Instant, mtu: usize) {
        if core::mem::replace(&mut self.world.caps.mtu, mtu) == mtu {
            return;
        }
        for id in self.live.ids() {
            if let Some(connection) = self.live.get_mut(id) {
                connection.on_link_mtu(now, &self.world);
            }
        }
    }

    /// Chooses what moves the congestion window of connections to come; at first it is CUBIC.
    pub fn set_algorithm(&mut self, algorithm: Algorithm) {
        self.world.algorithm = algorithm;
    }

    /// Connections that are established, the parked ones among them.
    pub fn live(&self) -> usize {
        self.live.len() + self.parked.len()
    }

    /// Connections that are parked: without socket and buffers, until something happens.
    pub fn parked(&self) -> usize {
        self.parked.len()
    }

    /// Half-open connections.
    pub fn half_open(&self) -> usize {
        self.syn.len()
    }

    /// Flows in TIME-WAIT.
    pub fn time_wait(&self) -> usize {
        self.time_wait.len()
    }

    /// Flows that are known: those of connections, half-open ones and TIME-WAIT.
    pub fn flows(&self) -> usize {
        self.flows.len()
    }

    /// Blocks of send store that nobody holds.
    pub fn free_blocks(&self) -> usize {
        self.world.pool.free()
    }

    /// Blocks for text that waits to be handed on that nobody holds.
    pub fn free_hold_blocks(&self) -> usize {
        self.world.hold.free()
    }

    /// Running totals.
    pub fn counters(&self) -> &Counters {
        &self.world.counters
    }

    fn deadline(&self) -> Option<Instant> {
        let (wheel, responder) = (self.wheel.next_deadline(), self.responder.deadline());
        let parked = self.parked.deadline();
        [wheel, self.syn.deadline(), self.time_wait.deadline(), responder, self.fragments.deadline(), parked]
            .into_iter()
            .flatten()
            .min()
    }

    /// What is due: half-open connections, TIME-WAIT, connections. Bounded; what is left over is due in the next turn.
    fn on_timers(&mut self, now: Instant, queue: &mut Q, app: &mut A) {
        self.on_syn_timers(now, queue);
        self.give_up_fragments(now, queue);
        self.on_time_wait_timers(now);
        let mut budget = TIMERS_PER_TURN as u32;
        while let Some(id) = self.wheel.pop_expired(now, &mut budget) {
            self.on_connection_timer(now, queue, app, id);
        }
        self.on_parked_timers(now, queue, app);
    }

    fn take_strays(&mut self, now: Instant, queue: &mut Q, app: &mut A) -> usize {
        for taken in 0..STRAYS_PER_TURN {
            let Some(stray) = self.strays.as_ref().and_then(StrayLink::take) else { return taken };
            self.on_stray(now, queue, app, stray);
        }
        STRAYS_PER_TURN
    }

    /// Frames of our own accord: announcements, questions for the gateway.
    fn send_own(&mut self, now: Instant, queue: &mut Q) {
        while self.responder.deadline().is_some_and(|at| at <= now) {
            let Some(mut frame) = queue.alloc_tx() else {
                self.world.counters.tx_exhausted += 1;
                return;
            };
            frame.set_len(frame.capacity());
            match self.responder.poll(now, frame.bytes_mut(), &mut self.world.counters) {
                Some(len) => {
                    frame.set_len(len);
                    queue.tx(frame, TxOffload::NONE);
                    self.world.counters.tx_frames += 1;
                }
                None => {
                    queue.release(frame);
                    return;
                }
            }
        }
    }
}
