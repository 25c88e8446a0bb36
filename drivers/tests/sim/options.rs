//! The model client's options: SACK, DSACK, timestamps, delayed acknowledgements.

use khamsin_drivers::sim::client::{ACK, ClientId, Options, Packet, SYN, Segment, Station, build, parse};
use khamsin_drivers::sim::{Side, SimConfig, SimEnd, Wire};
use khamsin_stack::Instant;
use std::net::SocketAddr;

/// SACK blocks, and TSval with TSecr, of one segment.
type Said = (Vec<(u32, u32)>, Option<(u32, u32)>);

const ISN: u32 = 5000;

/// A client that offers everything, and a peer by hand.
struct Bench {
    wire: Wire,
    peer: SimEnd,
    station: Station,
    id: ClientId,
    now: Instant,
    client: SocketAddr,
}

impl Bench {
    fn new(options: Options) -> Self {
        let wire = Wire::new(SimConfig { latency_us: 0, ..SimConfig::default() });
        let peer = wire.end(Side::Left);
        let mut station = Station::new(wire.end(Side::Right), ["198.18.0.1".parse().unwrap()]);
        let id = station.connect("198.18.0.2:7".parse().unwrap(), Options { isn: 0, ..options });
        let client = station.client(id).local();
        Bench { wire, peer, station, id, now: Instant::from_millis(1000), client }
    }

    fn send(&mut self, change: impl FnOnce(&mut Segment<'static>)) {
        let mut segment = Segment {
            seq: ISN,
            ack: 1,
            window: 5000,
            timestamps: Some((70, 1001)),
            ..Segment::new("198.18.0.2:7".parse().unwrap(), self.client, ACK)
        };
        change(&mut segment);
        self.peer.send(&build(Side::Left.mac(), Side::Right.mac(), &segment, false));
    }

    /// What the client says a millisecond later: each segment's SACK blocks, from our SYN on, and its timestamps.
    fn said(&mut self) -> Vec<Said> {
        self.now = self.now.plus_micros(1000);
        self.wire.advance(self.now);
        self.station.turn(self.now);
        self.wire.advance(self.now);
        let said = |segment: Segment<'_>| {
            let blocks = segment.sack.iter().map(|&(l, r)| (l.wrapping_sub(ISN), r.wrapping_sub(ISN)));
            (blocks.collect(), segment.timestamps)
        };
        std::iter::from_fn(|| self.peer.recv())
            .map(|frame| match parse(&frame) {
                Ok(Packet::Tcp(segment)) => said(segment),
                other => panic!("{other:?}"),
            })
            .collect()
    }

    fn noticed(&mut self) -> String {
        self.station.client(self.id).violations().join("; ")
    }
}

fn open(options: Options) -> Bench {
    let mut bench = Bench::new(options);
    assert_eq!(bench.said(), [(vec![], Some((1001, 0)))]);
    bench.send(|s| (s.flags, s.sack_permitted, s.mss) = (SYN | ACK, true, Some(1460)));
    assert_eq!(bench.said(), [(vec![], Some((1002, 70)))]);
    bench
}

fn everything() -> Options {
    Options { sack: true, timestamps: true, ..Options::default() }
}

#[test]
fn holes_and_duplicates_are_reported() {
    let mut bench = open(everything());
    let text = |bench: &mut Bench, seq: u32| bench.send(|s| (s.seq, s.payload) = (ISN + seq, &[b'x'; 100]));
    text(&mut bench, 201);
    assert_eq!(bench.said()[0].0, [(201, 301)]);
    text(&mut bench, 401);
    assert_eq!(bench.said()[0].0, [(401, 501), (201, 301)], "the latest first");
    text(&mut bench, 401);
    assert_eq!(bench.said()[0].0, [(401, 501), (401, 501), (201, 301)], "what came twice, in front");
    text(&mut bench, 1);
    assert_eq!(bench.said()[0].0, [(401, 501), (201, 301)]);
    text(&mut bench, 101);
    assert_eq!(bench.said()[0].0, [(401, 501)]);
    text(&mut bench, 101);
    assert_eq!(bench.said()[0].0, [(101, 201), (401, 501)]);
    assert_eq!(bench.noticed(), "");
}

#[test]
fn timestamps_must_be_kept_up_and_be_true() {
    let mut bench = open(everything());
    bench.send(|s| (s.seq, s.payload, s.timestamps) = (ISN + 1, b"old", Some((69, 1001))));
    assert_eq!(bench.said().len(), 1, "an old duplicate is answered");
    assert_eq!(bench.station.client(bench.id).received(), b"");
    bench.send(|s| (s.seq, s.payload, s.timestamps) = (ISN + 1, b"new", Some((71, 1001))));
    assert_eq!(bench.said()[0].1, Some((1004, 71)));
    assert_eq!(bench.noticed(), "");
    bench.send(|s| (s.seq, s.payload, s.timestamps) = (ISN + 4, b"bare", None));
    bench.send(|s| (s.seq, s.timestamps) = (ISN + 8, Some((72, 5_000_000))));
    bench.said();
    let noticed =
        "a segment without the timestamps that were agreed; echoed the timestamp 5000000, which was never sent";
    assert_eq!(bench.noticed(), noticed);
}

#[test]
fn what_was_not_offered_may_not_be_agreed() {
    let mut bench = Bench::new(Options::default());
    assert_eq!(bench.said(), [(vec![], None)]);
    bench.send(|s| (s.flags, s.sack_permitted) = (SYN | ACK, true));
    bench.said();
    assert_eq!(bench.noticed(), "an option that was not offered");
}

#[test]
fn acknowledgements_wait_for_a_second_segment() {
    let mut bench = open(Options { ack_delay_us: 5_000, ..everything() });
    bench.send(|s| (s.seq, s.payload) = (ISN + 1, b"one"));
    assert_eq!(bench.said(), []);
    bench.send(|s| (s.seq, s.payload) = (ISN + 4, b"two"));
    assert_eq!(bench.said().len(), 1);
    bench.send(|s| (s.seq, s.payload) = (ISN + 7, b"three"));
    let waited = (0..10).take_while(|_| bench.said().is_empty()).count();
    assert_eq!(waited, 5);
}
