//! Stateful TCP: handshakes as they should be, then anything.
//!
//! A [`Session`] plays eight peers against one shard. Its decisions come from a [`Source`]: the bytes of a fuzzer's input, or
//! the dice of the storm. The peers see every frame, hold each against what the application wrote and what the server
//! promised before ([`Peer::look`]), and know the true state when they lie.

mod attack;
pub mod extremes;
mod peer;
mod play;

use crate::packet::{self, Seg};
use crate::puppet::{SLOTS, slot_of};
use crate::source::Source;
use crate::world::{KINDS, WORLDS, World, config, limits, parking};
use core::time::Duration;
use khamsin_stack::limits::Limits;
use khamsin_stack::wire::checksum::{Verdict, verify_tcp};
use khamsin_stack::wire::{self, Kind};
use khamsin_stack::{FlowKey, Frame, RxChecksum};
use std::cell::RefCell;

pub use peer::Peer;

/// Steps that one input may take.
const STEPS_MAX: usize = 4096;

/// Eight peers and a shard.
pub struct Session {
    pub world: World,
    peers: [Peer; SLOTS],
    /// Frames that may wait before there is a turn: they come in one burst.
    burst: usize,
    /// Segments sent to connections that were live or half-open.
    pub segments: u64,
    /// What makes our initial sequence numbers differ.
    syns: u32,
    /// Which of the peers' oddities travel with the next segments.
    dress: Dress,
    /// Tell every segment, for those who look into a finding.
    trace: bool,
    /// Every so many frames of the server's have their checksums looked at.
    verify_every: u64,
}

/// How segments are wrapped.
#[derive(Clone, Copy, Default)]
struct Dress {
    tags: wire::VlanTags,
    between: packet::Between,
    ecn: u8,
    sum: bool,
}

impl Session {
    /// Peers of a shard on a device of that kind; of one that parks, from [`KINDS`] on.
    pub fn new(kind: usize) -> Self {
        let (parks, kind) = (kind >= KINDS, kind % KINDS);
        // One with plenty; one that limits sources, of which the peers with IPv6 addresses are one.
        let few = if parks { parking() } else { limits() };
        let limits = match kind {
            1 => Limits { store_blocks: 400, hold_blocks: 400, ..few },
            2 => Limits { per_source: 2, ..few },
            _ => few,
        };
        Session::around(World::new(kind, config(limits)))
    }

    /// Peers of that shard.
    pub fn around(world: World) -> Self {
        let peers = core::array::from_fn(|i| Peer::new(key(i, 0)));
        Session {
            world,
            peers,
            burst: 0,
            segments: 0,
            syns: 0,
            dress: Dress::default(),
            verify_every: 1,
            trace: std::env::var_os("KHAMSIN_FUZZ_TRACE").is_some(),
        }
    }

    /// Looks at the checksums of every `n`th frame only.
    pub fn verify_every(&mut self, n: u64) {
        self.verify_every = n.max(1);
    }

    /// Plays until the decisions run out or the steps do, then cleans up and looks whether anything was left behind.
    pub fn run(&mut self, source: &mut impl Source, steps: usize) {
        for _ in 0..steps {
            if source.is_empty() {
                break;
            }
            self.step(source);
            self.after_step();
        }
        self.end(source);
    }

    fn after_step(&mut self) {
        if self.world.ring.waiting() >= self.burst.min(khamsin_stack::queue::BURST) {
            self.turn();
        }
    }

    /// Turns until the shard would sleep.
    fn turn(&mut self) {
        let Session { world, peers, verify_every, trace, .. } = self;
        world.rest(&mut |world| look(world, peers, *verify_every, *trace));
    }

    fn pass(&mut self, duration: Duration, turns: usize) {
        let Session { world, peers, verify_every, trace, .. } = self;
        world.pass(duration, turns, |world| look(world, peers, *verify_every, *trace));
    }

    /// Silence: either the peers are gone for good and every timer runs out, or all is reset.
    fn end(&mut self, source: &mut impl Source) {
        self.turn();
        let slowly = source.byte() & 7 == 7;
        if slowly {
            self.world.ring.starved = None;
            self.pass(Duration::from_secs(3600), 3000);
        }
        let Session { world, peers, verify_every, trace, .. } = self;
        world.settle(|world| look(world, peers, *verify_every, *trace));
        for (i, slot) in self.world.app.slots.iter_mut().enumerate() {
            slot.mode = Default::default();
            slot.lives = 0;
            self.peers[i] = Peer::new(key(i, 0));
        }
        (self.dress, self.syns, self.burst) = (Dress::default(), 0, 0);
    }

    /// Sends a segment of peer `i`, in the dress of the day.
    fn send(&mut self, i: usize, seg: &Seg<'_>) {
        let peer = &mut self.peers[i];
        let Dress { tags, between, ecn, sum } = self.dress;
        let seg = Seg { tags, between, ecn, sum: sum || seg.sum, ..*seg };
        peer.sent(&seg);
        if self.trace {
            eprintln!("{:?} > {}", self.world.now, peer.tell(i, &seg));
        }
        let frame = packet::segment(&mut self.world.ring, &peer.key, &seg);
        let slot = &self.world.app.slots[i];
        self.segments += u64::from(slot.open || seg.flags.syn() || peer.is_half_open(slot));
        self.put(frame, seg.sum);
    }

    fn put(&mut self, frame: crate::ring::Buffer, sum: bool) {
        let checksum = if sum { RxChecksum::Unknown } else { RxChecksum::Valid };
        self.world.ring.receive(frame, checksum);
    }

    fn now_ms(&self) -> u32 {
        (self.world.now.micros() / 1000) as u32
    }
}

/// The name of peer `i`'s connection; `lap` chooses among a few ports.
fn key(i: usize, lap: usize) -> FlowKey {
    let port = 40_000 + i as u16 + (SLOTS * (lap % 4)) as u16;
    debug_assert_eq!(slot_of(port), i);
    let local_port = if i % 4 < 2 { 7 } else { 80 };
    if i % 2 == 0 {
        FlowKey::v4([198, 18, 0, 1 + i as u8], [198, 18, 0, 2], port, local_port)
    } else {
        let mut peer = [0; 16];
        peer[0] = 0xfd;
        let mut local = peer;
        (peer[15], local[15]) = (0x10 + i as u8, 2);
        FlowKey::v6(peer, local, port, local_port)
    }
}

/// Shows what was sent to whom it was sent to.
fn look(world: &mut World, peers: &mut [Peer; SLOTS], verify_every: u64, trace: bool) {
    for (peer, slot) in peers.iter_mut().zip(&world.app.slots) {
        peer.follow(slot);
    }
    let first = world.ring.sent - world.ring.tx.len() as u64;
    let mut sent = core::mem::take(&mut world.ring.tx);
    for (nth, sent) in sent.drain(..).enumerate() {
        let bytes = sent.frame.bytes();
        let parsed = wire::parse(bytes);
        match parsed.kind {
            Kind::Tcp(segment) => {
                let verdict = match sent.offload.checksum_start {
                    _ if !(first + nth as u64).is_multiple_of(verify_every) => Verdict::Valid,
                    Some(_) if verify_tcp(bytes, &segment) == Verdict::PseudoHeaderOnly => Verdict::Valid,
                    _ => verify_tcp(bytes, &segment),
                };
                assert_eq!(verdict, Verdict::Valid, "checksum of {segment:?}");
                let i = slot_of(segment.key.local_port);
                let peer = &mut peers[i];
                if trace {
                    let payload = segment.payload_len();
                    let (seq, ack) =
                        (segment.seq.wrapping_sub(peer.ack(0)) as i32, segment.ack.wrapping_sub(peer.seq(0)) as i32);
                    let (flags, window) = (segment.flags, segment.window);
                    eprintln!("{:?}  < {i}: {flags:?} seq {seq} ack {ack} win {window} len {payload}", world.now);
                }
                if (segment.key.peer, segment.key.local) == (peer.key.local, peer.key.peer)
                    && segment.key.local_port == peer.key.peer_port
                {
                    peer.look(&segment, bytes, &world.app.slots[i]);
                }
            }
            Kind::Arp | Kind::Icmp4(_) | Kind::Icmp6(_) | Kind::Fragment(_) => {}
            odd => panic!("a frame that nobody can read: {odd:?} {bytes:02x?}"),
        }
        world.ring.complete(sent);
    }
    world.ring.tx = sent;
}

thread_local! {
    /// Shards are used again: each leaks its receive buffers.
    static SESSIONS: RefCell<[Option<Session>; WORLDS]> = const { RefCell::new([const { None }; WORLDS]) };
}

/// One input of the target `tcp`.
pub fn run(bytes: &[u8]) {
    let mut input = crate::source::Input::new(bytes);
    let byte = usize::from(input.byte());
    // So that most of the committed inputs mean what they meant.
    let kind = if (64..128).contains(&byte) { KINDS } else { 0 } + byte % KINDS;
    SESSIONS.with_borrow_mut(|sessions| {
        let session = sessions[kind].get_or_insert_with(|| Session::new(kind));
        session.run(&mut input, STEPS_MAX);
    });
}
