//! The model client against itself.

use khamsin_drivers::sim::client::{ClientId, End, Options, Station};
use khamsin_drivers::sim::{Fate, Side, Sighting, SimConfig, Wire};
use khamsin_stack::Instant;
use std::net::{IpAddr, SocketAddr};

pub(crate) struct World {
    pub(crate) wire: Wire,
    pub(crate) server: Station,
    pub(crate) client: Station,
    pub(crate) now: Instant,
}

fn ip(text: &str) -> IpAddr {
    text.parse().unwrap()
}

impl World {
    pub(crate) fn new(config: SimConfig) -> Self {
        let wire = Wire::new(config);
        let server = Station::new(wire.end(Side::Left), [ip("198.18.0.2"), ip("fd00::2")]);
        let client = Station::new(wire.end(Side::Right), [ip("198.18.0.1"), ip("fd00::1")]);
        World { wire, server, client, now: Instant::ZERO }
    }

    /// Both ends of a connection to port 7, as far as the server has heard of it.
    fn connect(&mut self, passive: Options, active: Options, peer: &str) -> (Option<ClientId>, ClientId) {
        self.server.listen(7, passive);
        let peer: SocketAddr = peer.parse().unwrap();
        let id = self.client.connect(peer, active);
        let mut other = None;
        self.run(60, |world| {
            other = other.or(world.server.take_accepted().first().copied());
            other.is_some() && world.client.client(id).is_open()
        });
        (other, id)
    }

    /// Runs until `done`, at most `seconds` of virtual time; says whether it was done.
    pub(crate) fn run(&mut self, seconds: u64, mut done: impl FnMut(&mut World) -> bool) -> bool {
        let limit = self.now.plus_micros(seconds * 1_000_000);
        while self.now <= limit {
            self.wire.advance(self.now);
            self.server.turn(self.now);
            self.client.turn(self.now);
            if done(self) {
                return true;
            }
            let next = [self.wire.next_arrival(), self.server.deadline(), self.client.deadline()];
            // Nothing to wait for: it will never be done.
            let Some(next) = next.into_iter().flatten().min() else { return false };
            self.now = next.max(self.now.plus_micros(1));
        }
        false
    }

    fn verdict(&mut self, server: ClientId, client: ClientId) -> Vec<String> {
        let mut all = self.server.client(server).violations().to_vec();
        all.extend_from_slice(self.client.client(client).violations());
        all
    }
}

fn pattern(len: usize, salt: u64) -> Vec<u8> {
    (0..len as u64).map(|i| ((i + salt).wrapping_mul(0x9e37_79b9_7f4a_7c15) >> 56) as u8).collect()
}

/// Sends `len` bytes both ways, ends both sides, and compares.
fn exchange(config: SimConfig, passive: Options, active: Options, len: usize) -> World {
    let mut world = World::new(config.clone());
    let (server, client) = world.connect(passive, active, "198.18.0.2:7");
    let server = server.expect("the handshake is done");
    let (up, down) = (pattern(len, 0), pattern(len, 99));
    world.client.client(client).send(&up);
    world.server.client(server).send(&down);
    world.client.client(client).close();
    world.server.client(server).close();
    let done = world.run(100_000, |w| {
        w.client.client(client).read(usize::MAX);
        w.server.client(server).read(usize::MAX);
        w.client.client(client).end().is_some() && w.server.client(server).end().is_some()
    });
    let ends = [world.client.client(client).end(), world.server.client(server).end()];
    assert!(done, "{config:?} {ends:?} at {:?}", world.now);
    assert_eq!(ends, [Some(End::Finished); 2], "{config:?}");
    assert!(world.server.client(server).received() == up);
    assert!(world.client.client(client).received() == down);
    assert_eq!(world.verdict(server, client), Vec::<String>::new(), "{config:?}");
    world
}

#[test]
fn a_megabyte_both_ways_whatever_is_lost() {
    for (seed, percent) in [0, 1, 2, 5, 10, 20].into_iter().enumerate() {
        let config = SimConfig { loss_per_million: percent * 10_000, seed: seed as u64, ..SimConfig::default() };
        let world = exchange(config, Options::default(), Options::default(), 1_000_000);
        assert_eq!(world.wire.stats(Side::Left).lost > 0, percent > 0);
        assert_eq!(world.client.problems(), []);
    }
}

#[test]
fn reordered_doubled_and_damaged_frames_do_no_harm() {
    for seed in 0..4 {
        let config = SimConfig {
            loss_per_million: 20_000,
            duplicate_per_million: 50_000,
            reorder_per_million: 100_000,
            reorder_us: 3_000,
            corrupt_per_million: 10_000,
            seed,
            ..SimConfig::default()
        };
        let world = exchange(config, Options::default(), Options::default(), 300_000);
        let stats = world.wire.stats(Side::Left);
        assert!(stats.duplicated > 0 && stats.delayed > 0 && stats.corrupted > 0);
        assert!(!world.client.problems().is_empty(), "damage shows in checksums");
    }
}

#[test]
fn small_windows_small_segments_and_no_scaling() {
    let small = Options { window: 700, mss: 100, window_scale: None, ..Options::default() };
    exchange(SimConfig::default(), small.clone(), Options::default(), 50_000);
    exchange(SimConfig::default(), Options::default(), small.clone(), 50_000);
    let world = exchange(SimConfig::default(), small.clone(), small, 20_000);
    assert!(world.wire.stats(Side::Left).sent >= 200, "100 bytes a segment");
    let large = Options { window: 1 << 20, window_scale: Some(5), flight_max: 1 << 20, ..Options::default() };
    exchange(SimConfig { latency_us: 50_000, ..SimConfig::default() }, large.clone(), large, 2_000_000);
}

#[test]
fn a_byte_at_a_time() {
    let bytewise = Options { segment_max: 1, ..Options::default() };
    let world = exchange(SimConfig::default(), Options::default(), bytewise, 2000);
    assert!(world.wire.stats(Side::Right).sent >= 2000);
}

#[test]
fn ipv6() {
    let mut world = World::new(SimConfig::default());
    let (server, client) = world.connect(Options::default(), Options::default(), "[fd00::2]:7");
    world.client.client(client).send(b"hello");
    let server = server.unwrap();
    assert!(world.run(5, |w| w.server.client(server).received() == b"hello"));
}

#[test]
fn a_reader_that_stops_stops_the_sender() {
    let mut world = World::new(SimConfig { loss_per_million: 50_000, ..SimConfig::default() });
    let (server, client) = world.connect(Options::default(), Options::default(), "198.18.0.2:7");
    let server = server.unwrap();
    let sent = pattern(400_000, 1);
    world.client.client(client).send(&sent);
    world.client.client(client).close();
    // Minutes of a closed window: probes go on, nobody gives up, nothing more arrives.
    assert!(!world.run(300, |w| w.client.client(client).end().is_some()));
    assert!(world.server.client(server).unread() <= 65_535);
    assert!(world.server.client(server).unread() >= 65_000);
    let probes = world.wire.stats(Side::Right).sent;
    assert!(!world.run(60, |_| false));
    assert!(world.wire.stats(Side::Right).sent > probes);
    // A slow reader: a little at a time.
    let mut got = Vec::new();
    assert!(world.run(1000, |w| {
        got.extend_from_slice(w.server.client(server).read(997));
        w.client.client(client).all_acknowledged()
    }));
    assert!(world.server.client(server).finished());
    got.extend_from_slice(world.server.client(server).read(usize::MAX));
    assert!(got == sent);
    assert_eq!(world.verdict(server, client), Vec::<String>::new());
}

#[test]
fn half_closed_connections_carry_the_other_half() {
    let mut world = World::new(SimConfig::default());
    let (server, client) = world.connect(Options::default(), Options::default(), "198.18.0.2:7");
    let server = server.unwrap();
    world.client.client(client).close();
    assert!(world.run(5, |w| w.server.client(server).finished()));
    world.server.client(server).send(&pattern(100_000, 3));
    assert!(world.run(5, |w| {
        w.client.client(client).read(usize::MAX);
        w.client.client(client).received().len() == 100_000
    }));
    assert!(world.client.client(client).all_acknowledged());
    assert!(!world.client.client(client).finished());
    world.server.client(server).close();
    assert!(world.run(5, |w| w.server.client(server).end() == Some(End::Finished)));
    assert_eq!(world.verdict(server, client), Vec::<String>::new());
}

#[test]
fn resets_refusals_and_silence() {
    let mut world = World::new(SimConfig::default());
    let (server, client) = world.connect(Options::default(), Options::default(), "198.18.0.2:7");
    let server = server.unwrap();
    world.client.client(client).reset();
    assert_eq!(world.client.client(client).end(), Some(End::Aborted));
    assert!(world.run(5, |w| w.server.client(server).end() == Some(End::Reset)));

    let refused = world.client.connect("198.18.0.2:8".parse().unwrap(), Options::default());
    assert!(world.run(5, |w| w.client.client(refused).end() == Some(End::Refused)));
    assert_eq!(world.server.strangers(), 1);

    // A host that has forgotten the connection answers with a reset.
    let (server, client) = world.connect(Options::default(), Options::default(), "198.18.0.2:7");
    world.server.forget(server.unwrap());
    world.client.client(client).send(b"anyone?");
    assert!(world.run(5, |w| w.client.client(client).end() == Some(End::Reset)));

    let (_, client) = world.connect(Options::default(), Options::default(), "198.18.0.2:7");
    world.client.client(client).send(b"anyone?");
    world.wire.set_faults(|_: &Sighting<'_>| Fate::LOST);
    assert!(world.run(1000, |w| w.client.client(client).end() == Some(End::TimedOut)));
}

#[test]
fn many_connections_at_once() {
    let mut world = World::new(SimConfig { loss_per_million: 10_000, ..SimConfig::default() });
    world.server.listen(7, Options::default());
    let ids: Vec<_> =
        (0..200).map(|_| world.client.connect("198.18.0.2:7".parse().unwrap(), Options::default())).collect();
    for (i, &id) in ids.iter().enumerate() {
        world.client.client(id).send(&pattern(100, i as u64));
        world.client.client(id).close();
    }
    let mut accepted = Vec::new();
    assert!(world.run(100, |w| {
        for id in w.server.take_accepted() {
            accepted.push(id);
            w.server.client(id).close();
        }
        ids.iter().all(|&id| w.client.client(id).end() == Some(End::Finished))
    }));
    assert_eq!(accepted.len(), 200);
    let ports = |n: &ClientId, w: &mut World| w.server.client(*n).peer().port();
    let mut seen: Vec<_> = accepted.iter().map(|n| ports(n, &mut world)).collect();
    seen.sort_unstable();
    seen.dedup();
    assert_eq!(seen.len(), 200);
    for id in accepted {
        let i = world.server.client(id).peer().port() as u64 - 49_152;
        assert_eq!(world.server.client(id).received(), pattern(100, i));
    }
}
