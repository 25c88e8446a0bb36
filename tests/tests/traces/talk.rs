//! Conversations made by hand, as they would be recorded.

use khamsin_drivers::sim::Side;
use khamsin_drivers::sim::client::{ACK, FIN, PSH, SYN, Segment, build};
use std::net::SocketAddr;

/// The client's first sequence number, and the server's: both wrap soon.
const ISNS: (u32, u32) = (0xffff_ff80, 0xffff_fff0);

/// A frame, and when it was recorded, nanoseconds since 1970.
pub(crate) type Shot = (u64, Vec<u8>);

/// A conversation between a client and a server.
pub(crate) struct Talk {
    pub(crate) shots: Vec<Shot>,
    pub(crate) at_ns: u64,
    client: SocketAddr,
    server: SocketAddr,
    /// Next sequence numbers.
    pub(crate) up: u32,
    pub(crate) down: u32,
}

impl Talk {
    pub(crate) fn new(client: &str, server: &str) -> Talk {
        let at_ns = 1_700_000_000_123_456_789;
        let end = |text: &str| text.parse().expect("an address and a port");
        let (client, server) = (end(client), end(server));
        Talk { shots: Vec::new(), at_ns, client, server, up: ISNS.0, down: ISNS.1 }
    }

    /// The usual one, over IPv4.
    pub(crate) fn v4() -> Talk {
        Talk::new("192.0.2.1:40000", "192.0.2.2:80")
    }

    /// Lets time pass.
    pub(crate) fn wait_us(&mut self, us: u64) -> &mut Talk {
        self.at_ns += us * 1000;
        self
    }

    /// Records a segment as it is.
    pub(crate) fn shot(&mut self, from_client: bool, segment: Segment<'_>) -> &mut Talk {
        let (from, to) = if from_client { (self.client, self.server) } else { (self.server, self.client) };
        let (from_mac, to_mac) = if from_client { (Side::Right, Side::Left) } else { (Side::Left, Side::Right) };
        let frame = build(from_mac.mac(), to_mac.mac(), &Segment { from, to, ..segment }, false);
        self.shots.push((self.at_ns, frame));
        self.wait_us(if from_client { 250 } else { 100 })
    }

    /// A segment with the numbers that are due, which are not moved on.
    pub(crate) fn draft<'p>(&self, from_client: bool, flags: u8, payload: &'p [u8]) -> Segment<'p> {
        let (seq, ack) = if from_client { (self.up, self.down) } else { (self.down, self.up) };
        let ack = if flags & ACK != 0 { ack } else { 0 };
        Segment { seq, ack, window: 64_240, payload, ..Segment::new(self.client, self.server, flags) }
    }

    fn send(&mut self, from_client: bool, segment: Segment<'_>) -> &mut Talk {
        let len = segment.sequence_len();
        let next = if from_client { &mut self.up } else { &mut self.down };
        *next = next.wrapping_add(len);
        self.shot(from_client, segment)
    }

    pub(crate) fn syn(&mut self) -> &mut Talk {
        let draft = self.draft(true, SYN, b"");
        self.send(true, Segment { mss: Some(1460), window_scale: Some(7), sack_permitted: true, ..draft })
    }

    pub(crate) fn syn_ack(&mut self) -> &mut Talk {
        let draft = self.draft(false, SYN | ACK, b"");
        self.send(false, Segment { mss: Some(1460), window_scale: Some(7), sack_permitted: true, ..draft })
    }

    pub(crate) fn ack(&mut self, from_client: bool) -> &mut Talk {
        let draft = self.draft(from_client, ACK, b"");
        self.shot(from_client, draft)
    }

    pub(crate) fn open(&mut self) -> &mut Talk {
        self.syn().syn_ack().ack(true)
    }

    pub(crate) fn up(&mut self, text: &[u8]) -> &mut Talk {
        let draft = self.draft(true, ACK | PSH, text);
        self.send(true, draft)
    }

    pub(crate) fn down(&mut self, text: &[u8]) -> &mut Talk {
        let draft = self.draft(false, ACK | PSH, text);
        self.send(false, draft)
    }

    pub(crate) fn fin(&mut self, from_client: bool) -> &mut Talk {
        let draft = self.draft(from_client, ACK | FIN, b"");
        self.send(from_client, draft)
    }

    /// Both end: the server first.
    pub(crate) fn close(&mut self) -> &mut Talk {
        self.fin(false).ack(true).fin(true).ack(false)
    }

    /// A request and its answer of `len` bytes, in segments of 1,000, each second of which is acknowledged.
    pub(crate) fn http(&mut self, len: usize) -> &mut Talk {
        self.up(b"GET / HTTP/1.1\r\nHost: h\r\n\r\n").ack(false).wait_us(2_000);
        for (i, piece) in body(len).chunks(1000).enumerate() {
            self.down(piece);
            if i % 2 == 1 {
                self.ack(true);
            }
        }
        self.ack(true)
    }

    /// Takes the last frame out: the recorder missed it.
    pub(crate) fn missed(&mut self) -> &mut Talk {
        self.shots.pop();
        self
    }

    pub(crate) fn take(&mut self) -> Vec<Shot> {
        std::mem::take(&mut self.shots)
    }
}

/// An answer: its head, and text that is different everywhere.
pub(crate) fn body(len: usize) -> Vec<u8> {
    let mut bytes = format!("HTTP/1.1 200 OK\r\nContent-Length: {len}\r\n\r\n").into_bytes();
    bytes.extend((0..len).map(|i| (i * 7 + i / 251) as u8));
    bytes
}
