//! What dice would take years to throw: thousands of the same in one instant, a second shard, the drain.

use super::Session;
use crate::packet::{self, Seg};
use crate::puppet::SLOTS;
use crate::ring::Buffer;
use crate::source::{Dice, Source};
use crate::world::{World, config, limits};
use core::time::Duration;
use khamsin_stack::queue::BURST;
use khamsin_stack::wire::Flags;
use khamsin_stack::{Counters, FlowKey, RxChecksum, stray};

/// More of anything than is answered in a second.
const FLOOD: usize = 3_000;
/// More than there are places to put packets together.
const PIECES: usize = 40;

impl Session {
    /// Floods of what is answered within limits only, and of what is kept within limits only.
    pub fn flood(&mut self) {
        let (v4, v6) = (self.peers[0].key, self.peers[1].key);
        for nth in 0..FLOOD {
            let key = if nth % 2 == 0 { v4 } else { v6 };
            let echo = if key.is_v4() { (8, 0) } else { (128, 0) };
            let ping = packet::icmp(&mut self.world.ring, &key, echo, nth as u32, b"ping");
            self.world.ring.receive(ping, RxChecksum::Unknown);
            let stranger = FlowKey { peer_port: 1000 + nth as u16, ..key };
            let lost = packet::segment(&mut self.world.ring, &stranger, &Seg::default());
            self.world.ring.receive(lost, RxChecksum::Valid);
            if self.world.ring.waiting() >= BURST {
                self.turn();
            }
        }
        // Long enough for every limit to be what it was.
        self.pass(Duration::from_secs(5), 64);
        self.long_pings(&v4);
        self.long_pings(&v6);
    }

    /// Pings longer than a frame, whole and in part, and two that contradict themselves.
    fn long_pings(&mut self, key: &FlowKey) {
        let echo = if key.is_v4() { (8, 0) } else { (128, 0) };
        for nth in 0..PIECES {
            let ping = packet::icmp(&mut self.world.ring, key, echo, nth as u32, &[nth as u8; 2000]);
            let Some([one, two]) = packet::fragments(&mut self.world.ring, &ping, 1000, nth as u16) else { continue };
            let whole = nth < 4;
            let contradicts = nth == 4;
            if contradicts {
                let other = packet::fragments(&mut self.world.ring, &ping, 904, nth as u16).map(|[_, two]| two);
                other.into_iter().for_each(|piece| self.put_piece(piece));
            }
            self.put_piece(one);
            if whole || contradicts {
                self.put_piece(two);
            }
        }
        self.turn();
    }

    fn put_piece(&mut self, piece: Buffer) {
        self.world.ring.receive(piece, RxChecksum::Unknown);
    }

    /// The server shuts down in the middle of it. Nothing but an end may follow.
    pub fn drain(&mut self, seed: u64) {
        let mut dice = Dice::new(seed, u64::MAX);
        for _ in 0..200 {
            self.step(&mut dice);
        }
        self.world.ring.starved = None;
        self.turn();
        self.world.shard.drain(self.world.now, &mut self.world.ring, &mut self.world.app);
        for _ in 0..2000 {
            self.step(&mut dice);
            self.after_step();
        }
        self.end(&mut dice);
    }
}

/// Two shards, whose frames come to the wrong one: they find their way, as long as there is room on it.
pub fn strays(seed: u64) -> Counters {
    let mut shards = stray::links(2, |_| {}).into_iter().map(|link| {
        let config = khamsin_stack::ShardConfig { strays: Some(link), ..config(limits()) };
        Session::around(World::new(0, config))
    });
    let (Some(mut home), Some(mut wrong)) = (shards.next(), shards.next()) else { unreachable!("two links") };
    let mut dice = Dice::new(seed, u64::MAX);
    for _ in 0..200 {
        home.step(&mut dice);
        home.turn();
        let i = dice.below(SLOTS);
        let peer = &home.peers[i];
        let seg = Seg { flags: Flags::ACK, ..peer.honest() };
        let frame = packet::segment(&mut wrong.world.ring, &peer.key, &seg);
        wrong.world.ring.receive(frame, RxChecksum::Valid);
        wrong.world.turn();
        home.turn();
        wrong.world.turn();
    }
    for nth in 0..1000u16 {
        let key = FlowKey { peer_port: 2000 + nth, ..home.peers[0].key };
        let frame = packet::segment(&mut wrong.world.ring, &key, &Seg::default());
        wrong.world.ring.receive(frame, RxChecksum::Valid);
    }
    while wrong.world.ring.waiting() > 0 {
        wrong.world.turn();
    }
    for _ in 0..100 {
        home.turn();
        wrong.world.turn();
    }
    home.end(&mut dice);
    let mut total = *home.world.shard.counters();
    total.add(wrong.world.shard.counters());
    assert!(total.stray_claimed > 0 && total.drop_stray_full > 0, "strays found no way: {total:?}");
    total
}
