//! What the model client must notice: a peer that is wrong, written by hand.

use khamsin_drivers::sim::client::{
    ACK, ClientId, End, FIN, Options, PSH, Packet, RST, SYN, Segment, Station, build, parse,
};
use khamsin_drivers::sim::{Side, SimConfig, SimEnd, Wire};
use khamsin_stack::Instant;
use std::net::SocketAddr;

const ISN: u32 = 1000;

/// A client whose peer is this test.
struct Bench {
    wire: Wire,
    peer: SimEnd,
    station: Station,
    id: ClientId,
    now: Instant,
    client_addr: SocketAddr,
    acked: u32,
}

impl Bench {
    /// The handshake is done; the client's window is 1000 bytes.
    fn new() -> Self {
        let wire = Wire::new(SimConfig { latency_us: 0, ..SimConfig::default() });
        let peer = wire.end(Side::Left);
        let mut station = Station::new(wire.end(Side::Right), ["198.18.0.1".parse().unwrap()]);
        let options = Options { isn: 0, window: 1000, window_scale: None, ..Options::default() };
        let id = station.connect("198.18.0.2:7".parse().unwrap(), options);
        let client_addr = station.client(id).local();
        let mut bench = Bench { wire, peer, station, id, now: Instant::ZERO, client_addr, acked: 1 };
        assert_eq!(bench.replies(), [(0, 0, SYN)]);
        bench.send(SYN | ACK, 0, b"");
        assert_eq!(bench.replies(), [(1, 1, ACK)]);
        bench
    }

    fn send(&mut self, flags: u8, seq: u32, payload: &[u8]) {
        let segment = Segment {
            seq: ISN.wrapping_add(seq),
            ack: self.acked,
            window: 500,
            mss: (flags & SYN != 0).then_some(1460),
            payload,
            ..Segment::new("198.18.0.2:7".parse().unwrap(), self.client_addr, flags)
        };
        self.peer.send(&build(Side::Left.mac(), Side::Right.mac(), &segment, false));
    }

    /// What the client sends: sequence number, acknowledgement (both from the SYN on), flags.
    fn replies(&mut self) -> Vec<(u32, u32, u8)> {
        self.now = self.now.plus_micros(1000);
        self.wire.advance(self.now);
        self.station.turn(self.now);
        self.wire.advance(self.now);
        std::iter::from_fn(|| self.peer.recv())
            .map(|frame| match parse(&frame) {
                Ok(Packet::Tcp(s)) => (s.seq, if s.flags & ACK != 0 { s.ack - ISN } else { 0 }, s.flags),
                other => panic!("{other:?}"),
            })
            .collect()
    }

    /// What the client has noticed.
    fn noticed(&mut self) -> String {
        self.station.client(self.id).violations().join("; ")
    }
}

#[test]
fn a_peer_in_good_order_is_not_blamed() {
    let mut bench = Bench::new();
    bench.send(ACK | PSH, 1, b"hello");
    assert_eq!(bench.replies(), [(1, 6, ACK)]);
    // Again, out of order, overlapping, a probe at the edge, a FIN twice.
    bench.send(ACK, 1, b"hello");
    bench.send(ACK, 8, b"world");
    bench.send(ACK, 4, b"lo, w");
    assert_eq!(bench.replies(), [(1, 13, ACK)]);
    bench.send(ACK, 13, &[b'x'; 988]);
    assert_eq!(bench.replies(), [(1, 1001, ACK)]);
    bench.send(ACK, 1001, b"p");
    assert_eq!(bench.replies(), [(1, 1001, ACK)]);
    bench.station.client(bench.id).read(2000);
    assert_eq!(bench.replies(), [(1, 1001, ACK)]);
    bench.send(ACK | FIN, 1001, b"p");
    bench.send(ACK | FIN, 1001, b"p");
    assert_eq!(bench.replies(), [(1, 1003, ACK)]);
    assert_eq!(bench.noticed(), "");
    let received = bench.station.client(bench.id).received();
    assert!(received.starts_with(b"hello, world") && received.len() == 1001);
}

#[test]
fn text_beyond_the_window() {
    let mut bench = Bench::new();
    bench.send(ACK, 1, &[b'x'; 1002]);
    assert_eq!(bench.replies(), [(1, 1001, ACK)]);
    assert_eq!(bench.noticed(), "text up to 1003 beyond the window's edge 1001");
}

#[test]
fn other_bytes_the_second_time() {
    let mut bench = Bench::new();
    bench.send(ACK, 1, b"hello");
    bench.send(ACK, 2, b"allo");
    bench.replies();
    assert_eq!(bench.noticed(), "byte 1 was sent again with another value");
}

#[test]
fn acknowledgements_of_what_was_never_sent() {
    let mut bench = Bench::new();
    bench.acked = 2;
    bench.send(ACK, 1, b"hello");
    assert_eq!(bench.replies(), [(1, 1, ACK)]);
    assert_eq!(bench.noticed(), "acknowledged 2, sent were 1");
}

#[test]
fn text_behind_the_end() {
    let mut bench = Bench::new();
    bench.send(ACK | FIN, 1, b"bye");
    bench.send(ACK, 5, b"and");
    bench.replies();
    assert_eq!(bench.noticed(), "text up to 8 behind the FIN at 4");
}

#[test]
fn a_window_taken_back() {
    let mut bench = Bench::new();
    bench.station.client(bench.id).send(&[b'u'; 400]);
    assert_eq!(bench.replies().len(), 1);
    bench.send(ACK, 1, b"");
    bench.replies();
    assert_eq!(bench.noticed(), "");
    // 500 from 1 on were given; 100 acknowledged and 300 left would be 401.
    bench.acked = 101;
    let segment = Segment {
        seq: ISN + 1,
        ack: 101,
        window: 300,
        ..Segment::new("198.18.0.2:7".parse().unwrap(), bench.client_addr, ACK)
    };
    bench.peer.send(&build(Side::Left.mac(), Side::Right.mac(), &segment, false));
    bench.replies();
    assert_eq!(bench.noticed(), "took the window back from 501 to 401");
}

#[test]
fn resets_must_be_exact() {
    let mut bench = Bench::new();
    bench.send(RST | ACK, 5, b"");
    assert_eq!(bench.replies(), [(1, 1, ACK)]);
    assert_eq!(bench.noticed(), "a reset at 5 instead of 1");
    bench.send(RST | ACK, 5000, b"");
    assert_eq!(bench.replies(), []);
    bench.send(RST | ACK, 1, b"");
    bench.replies();
    assert_eq!(bench.station.client(bench.id).end(), Some(End::Reset));
}

#[test]
fn a_checksum_that_is_wrong_counts_as_a_problem() {
    let mut bench = Bench::new();
    let segment = Segment {
        seq: ISN + 1,
        ack: 1,
        window: 300,
        payload: b"hello",
        ..Segment::new("198.18.0.2:7".parse().unwrap(), bench.client_addr, ACK)
    };
    let mut frame = build(Side::Left.mac(), Side::Right.mac(), &segment, false);
    *frame.last_mut().unwrap() ^= 1;
    bench.peer.send(&frame);
    assert_eq!(bench.replies(), []);
    assert_eq!(bench.station.problems().len(), 1);
}
