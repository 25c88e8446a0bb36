//! The stack on the wire, judged by the model client: the same transcripts whatever the wire does to them.

use khamsin_drivers::sim::client::{ClientId, End, Options, Station};
use khamsin_drivers::sim::{Fate, Side, Sighting, SimConfig, SimQueue, Wire};
use khamsin_stack::limits::Limits;
use khamsin_stack::shard::{Shard, ShardConfig};
use khamsin_stack::wire::Addresses;
use khamsin_stack::{App, CloseReason, Content, Instant, Listener, Stream};
use std::net::SocketAddr;

/// Port 7 echoes and ends its stream when the peer has; port 80 sends a body by reference, a trailer, and its end.
struct Server {
    body: Content,
    closed: Vec<CloseReason>,
}

impl App for Server {
    type Session = (u16, bool);

    fn open(&mut self, _: Instant, listener: Listener, _: SocketAddr) -> (u16, bool) {
        (listener.port, false)
    }

    fn ready(&mut self, _: Instant, (port, sent): &mut (u16, bool), stream: &mut impl Stream) {
        if *port == 80 && !*sent {
            *sent = stream.send_shared(&self.body, 0..self.body.len());
            assert!(*sent && khamsin_stack::app::send_all(stream, b"trailer"));
            stream.shutdown();
        }
        if *port == 7 {
            while echo(stream) > 0 {}
        }
        if stream.finished() {
            stream.shutdown();
        }
    }

    fn expired(&mut self, _: Instant, _: &mut (u16, bool), _: &mut impl Stream) {}

    fn closed(&mut self, _: (u16, bool), reason: CloseReason) {
        self.closed.push(reason);
    }
}

fn echo(stream: &mut impl Stream) -> usize {
    let mut bytes = [0; 8192];
    let most = stream.send_capacity().min(bytes.len());
    let n = stream.recv(|data| {
        let n = data.len().min(most);
        bytes[..n].copy_from_slice(&data[..n]);
        n
    });
    assert!(khamsin_stack::app::send_all(stream, &bytes[..n]));
    n
}

pub(crate) struct World {
    wire: Wire,
    queue: SimQueue,
    shard: Shard<Server, SimQueue>,
    app: Server,
    station: Station,
    now: Instant,
}

impl World {
    fn new(config: SimConfig) -> Self {
        let wire = Wire::new(config);
        let queue = wire.queue(Side::Left);
        let setup = ShardConfig {
            listeners: vec![Listener { app: 0, port: 7 }, Listener { app: 1, port: 80 }],
            addresses: Addresses::Own(vec![("198.18.0.2".parse().unwrap(), 24), ("fd00::2".parse().unwrap(), 64)]),
            gateways: vec![],
            limits: Limits::for_connections(300),
            secret: [9; 32],
            strays: None,
        };
        let shard = Shard::new(setup, khamsin_stack::Queue::caps(&queue));
        let addresses = ["198.18.0.1".parse().unwrap(), "fd00::1".parse().unwrap()];
        let station = Station::new(wire.end(Side::Right), addresses);
        let body = Content::new((0..1_500_000u32).map(|i| (i / 5) as u8).collect::<Vec<_>>());
        World { wire, queue, shard, app: Server { body, closed: vec![] }, station, now: Instant::from_millis(1) }
    }

    fn connect(&mut self, peer: &str, options: Options) -> ClientId {
        self.station.connect(peer.parse().unwrap(), options)
    }

    /// Runs until `done`, at most `seconds` of virtual time; says whether it was done.
    fn run(&mut self, seconds: u64, mut done: impl FnMut(&mut World) -> bool) -> bool {
        let limit = self.now.plus_micros(seconds * 1_000_000);
        while self.now <= limit {
            self.wire.advance(self.now);
            self.station.turn(self.now);
            let turn = self.shard.turn(self.now, &mut self.queue, &mut self.app);
            if done(self) {
                return true;
            }
            if turn.busy || self.wire.has_arrived(Side::Left) {
                // As the loop does: again, a little later.
                self.now = self.now.plus_micros(1);
                continue;
            }
            let next = [self.wire.next_arrival(), self.station.deadline(), turn.deadline];
            let Some(next) = next.into_iter().flatten().min() else { return false };
            self.now = next.max(self.now.plus_micros(1));
        }
        false
    }

    /// Nobody has done wrong, and every buffer is back where it belongs.
    fn verdict(&mut self, ids: &[ClientId]) {
        for &id in ids {
            assert_eq!(self.station.client(id).violations(), Vec::<String>::new());
        }
        assert!(self.run(200, |w| w.shard.live() + w.shard.time_wait() + w.shard.half_open() == 0));
        assert!(self.queue.held() <= 1, "{} frames were lost", self.queue.held());
        assert_eq!(self.shard.free_blocks(), Limits::for_connections(300).store_blocks);
        assert_eq!(self.app.body.references(), 1);
    }
}

fn pattern(len: usize) -> Vec<u8> {
    (0..len as u64).map(|i| (i.wrapping_mul(0x9e37_79b9_7f4a_7c15) >> 56) as u8).collect()
}

/// Echoes `len` bytes and ends both sides.
pub(crate) fn echoes(config: SimConfig, options: Options, len: usize, peer: &str) -> World {
    let mut world = World::new(config.clone());
    let id = world.connect(peer, options);
    let sent = pattern(len);
    world.station.client(id).send(&sent);
    world.station.client(id).close();
    let done = world.run(20_000, |w| {
        let client = w.station.client(id);
        client.read(usize::MAX);
        client.end().is_some()
    });
    let client = world.station.client(id);
    let state = (client.end(), client.received().len(), client.violations().to_vec());
    assert!(done, "{config:?}: {state:?} at {:?}, {:?}", world.now, world.shard.counters());
    assert_eq!(client.end(), Some(End::Finished), "{config:?}: {state:?}");
    assert!(client.received() == sent, "{config:?}: {state:?}");
    world.verdict(&[id]);
    assert_eq!(world.app.closed, [CloseReason::Finished]);
    world
}

const ECHO: &str = "198.18.0.2:7";
const ECHO_V6: &str = "[fd00::2]:7";
const SOURCE: &str = "198.18.0.2:80";

#[test]
fn a_megabyte_comes_back_whatever_is_lost() {
    for (seed, percent) in [0, 1, 2, 5, 10, 20].into_iter().enumerate() {
        let config = SimConfig { loss_per_million: percent * 10_000, seed: seed as u64, ..SimConfig::default() };
        echoes(config, Options::default(), 1_000_000, ECHO);
    }
}

#[test]
fn reordered_doubled_and_damaged() {
    for seed in 0..6 {
        let config = SimConfig {
            loss_per_million: 10_000,
            duplicate_per_million: 50_000,
            reorder_per_million: 50_000,
            reorder_us: 3_000,
            corrupt_per_million: 5_000,
            seed,
            ..SimConfig::default()
        };
        echoes(config, Options::default(), 200_000, ECHO);
    }
}

#[test]
fn over_ipv6_with_offloads_and_partial_checksums() {
    let config = SimConfig { tx_checksum: true, loss_per_million: 10_000, seed: 3, ..SimConfig::default() };
    echoes(config.clone(), Options::default(), 300_000, ECHO_V6);
    let config = SimConfig { tx_segment_max: 65_000, ..config };
    for peer in [ECHO, ECHO_V6] {
        echoes(config.clone(), Options { window: 1 << 20, ..Options::default() }, 1_000_000, peer);
    }
    let config = SimConfig { rx_partial_checksums: true, ..SimConfig::default() };
    echoes(config, Options { partial_checksums: true, ..Options::default() }, 100_000, ECHO);
}

#[test]
fn byte_at_a_time_small_windows_and_no_options() {
    echoes(SimConfig::default(), Options { segment_max: 1, ..Options::default() }, 3000, ECHO);
    let small = Options { window: 900, mss: 200, window_scale: None, ..Options::default() };
    echoes(SimConfig::default(), small.clone(), 50_000, ECHO);
    echoes(SimConfig { loss_per_million: 30_000, ..SimConfig::default() }, small, 50_000, ECHO);
    let long = SimConfig { latency_us: 100_000, ..SimConfig::default() };
    echoes(long, Options { window: 1 << 22, ..Options::default() }, 1_000_000, ECHO);
    echoes(
        SimConfig { mtu: 600, ..SimConfig::default() },
        Options { mss: 560, segment_max: 500, ..Options::default() },
        50_000,
        ECHO,
    );
}

#[test]
fn a_slow_reader_and_a_closed_window() {
    for (seed, loss) in [(1, 0), (2, 30_000)] {
        let mut world = World::new(SimConfig { loss_per_million: loss, seed, ..SimConfig::default() });
        let id = world.connect(SOURCE, Options::default());
        // Minutes of a closed window, probed and answered.
        assert!(!world.run(200, |w| w.station.client(id).end().is_some()));
        assert!((60_000..=65_535).contains(&world.station.client(id).unread()));
        assert!(world.shard.counters().window_probes > 3);
        assert_eq!(world.shard.live(), 1);
        let mut got = Vec::new();
        world.run(5000, |w| {
            got.extend_from_slice(w.station.client(id).read(1111));
            w.station.client(id).finished()
        });
        got.extend_from_slice(world.station.client(id).read(usize::MAX));
        let body = world.app.body.bytes();
        assert!(
            got.len() == body.len() + 7 && got[..body.len()] == *body && got.ends_with(b"trailer"),
            "{}",
            got.len()
        );
        world.station.client(id).close();
        assert!(world.run(100, |w| w.station.client(id).end() == Some(End::Finished)));
        world.verdict(&[id]);
    }
}

#[test]
fn half_close_keeps_the_other_half() {
    let mut world = World::new(SimConfig::default());
    let id = world.connect(SOURCE, Options::default());
    world.station.client(id).close();
    assert!(world.run(100, |w| {
        w.station.client(id).read(usize::MAX);
        w.station.client(id).end() == Some(End::Finished)
    }));
    assert_eq!(world.station.client(id).received().len(), 1_500_007);
    world.verdict(&[id]);
    assert_eq!(world.app.closed, [CloseReason::Finished]);
}

#[test]
fn resets_refusals_and_lost_memory() {
    let mut world = World::new(SimConfig::default());
    let id = world.connect(ECHO, Options::default());
    world.station.client(id).send(b"hello");
    assert!(world.run(5, |w| w.station.client(id).received() == b"hello"));
    world.station.client(id).reset();
    assert!(world.run(5, |w| w.app.closed == [CloseReason::PeerReset]));

    let refused = world.connect("198.18.0.2:9", Options::default());
    assert!(world.run(5, |w| w.station.client(refused).end() == Some(End::Refused)));

    // The client's host has lost its memory and answers the server's retransmissions with a reset.
    let id = world.connect(SOURCE, Options::default());
    assert!(world.run(5, |w| w.station.client(id).unread() > 20_000));
    world.station.forget(id);
    world.station.client(id).read(usize::MAX);
    assert!(world.run(60, |w| w.app.closed == [CloseReason::PeerReset; 2]));
    assert!(world.station.strangers() > 0);
    world.verdict(&[]);
}

#[test]
fn two_hundred_connections_at_once() {
    let mut world = World::new(SimConfig { loss_per_million: 10_000, seed: 4, ..SimConfig::default() });
    let ids: Vec<_> =
        (0..200).map(|i| world.connect(if i % 2 == 0 { ECHO } else { ECHO_V6 }, Options::default())).collect();
    for (i, &id) in ids.iter().enumerate() {
        world.station.client(id).send(&pattern(1000 + i));
        world.station.client(id).close();
    }
    assert!(world.run(300, |w| {
        ids.iter().all(|&id| {
            w.station.client(id).read(usize::MAX);
            w.station.client(id).end() == Some(End::Finished)
        })
    }));
    for (i, &id) in ids.iter().enumerate() {
        assert!(world.station.client(id).received() == pattern(1000 + i));
    }
    world.verdict(&ids);
    assert_eq!(world.app.closed, [CloseReason::Finished; 200]);
}

/// RFC 4821: on a path that swallows long packets and says nothing, a download goes on in smaller ones, with and without
/// segmentation by the device; the next connection to that peer begins with them.
#[test]
fn a_black_hole_is_walked_around() {
    for (carries, peer, offload) in
        [(1100, SOURCE, 0), (1400, SOURCE, 65_000), (600, SOURCE, 65_000), (1280, "[fd00::2]:80", 0)]
    {
        let config = SimConfig { tx_checksum: offload > 0, tx_segment_max: offload, ..SimConfig::default() };
        let mut world = World::new(config);
        world.wire.set_faults(move |seen: &Sighting<'_>| {
            let swallowed = seen.from == Side::Left && seen.frame.len() > 14 + carries;
            if swallowed { Fate::LOST } else { Fate::FINE }
        });
        let mut steps = 0;
        let mut ids = Vec::new();
        for round in 0..2 {
            let id = world.connect(peer, Options::default());
            ids.push(id);
            let began = world.now;
            assert!(world.run(120, |w| {
                w.station.client(id).read(usize::MAX);
                w.station.client(id).finished()
            }));
            let took_ms = world.now.micros_since(began) / 1000;
            let met = world.shard.counters().pmtu_black_holes - steps;
            steps += met;
            assert!((met > 0) == (round == 0), "{carries}, round {round}: {met} steps");
            assert!(took_ms < if round == 0 { 20_000 } else { 3_000 }, "{carries}, round {round}: {took_ms} ms");
            assert_eq!(world.station.client(id).received().len(), 1_500_007);
            world.station.client(id).close();
        }
        world.verdict(&ids);
    }
}
