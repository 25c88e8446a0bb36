//! What a packet script consists of. Every type's `Display` is the notation that [`parse`](super::parse) reads.

use khamsin_stack::wire::Flags;
use std::ops::RangeInclusive;

/// A packet script: what is done to a TCP server, and what it must do.
#[derive(Clone, PartialEq, Eq, Debug)]
pub struct Script {
    /// Where it was read from, for messages.
    pub file: String,
    /// The comment block at its top.
    pub header: Header,
    /// Its lines, in order.
    pub lines: Vec<Line>,
}

impl Script {
    /// How long a run takes at least, microseconds; `*` is taken for a second.
    pub fn shortest_us(&self) -> u64 {
        self.lines.iter().fold(0, |now: u64, line| match &line.when {
            When::After(range) => now.saturating_add(*range.start()),
            When::At(range) => now.max(*range.start()),
            When::Any => now.saturating_add(1_000_000),
        })
    }
}

/// What the comment block at the top of a script says.
#[derive(Clone, PartialEq, Eq, Debug)]
pub struct Header {
    /// The first line: the clauses that the script shows, e.g. `RFC 5961 3.2, RFC 9293 3.10.7.4`.
    pub clauses: String,
    /// The other lines that are no setting: why.
    pub why: Vec<String>,
    /// Versions of IP that it runs over; both unless `# ip:` says otherwise.
    pub families: Vec<Family>,
    /// Whether Linux does the same.
    pub linux: Linux,
    /// What the script waits for (`# pending:`): it must fail until that is there.
    pub pending: Option<String>,
    /// Why it fails where connections are parked (`# parked: differs — REASON`), which it must.
    pub parked: Option<String>,
    /// Kernel parameters for a run against Linux (`# sysctl: NAME=VALUE`).
    pub sysctls: Vec<(String, String)>,
    /// The peer talks to a port that nobody listens on (`# port: closed`).
    pub port_closed: bool,
    /// Half-open connections that khamsin may hold (`# syn-backlog: N`).
    pub syn_backlog: Option<usize>,
    /// Silence after which the application has the peer asked whether it lives (`# keep-alive: SECONDS`), microseconds.
    pub keep_alive_us: Option<u64>,
    /// How long the application lets its data go unacknowledged (`# user-timeout: SECONDS`), microseconds.
    pub user_timeout_us: Option<u64>,
}

/// Version of IP.
#[derive(Clone, Copy, PartialEq, Eq, Debug, Hash)]
pub enum Family {
    /// IPv4.
    V4,
    /// IPv6.
    V6,
}

/// What is known of the real Linux.
#[derive(Clone, PartialEq, Eq, Debug, Default)]
pub enum Linux {
    /// It does what the script says.
    #[default]
    Same,
    /// It does something else (`# linux: differs — REASON`): the run against it must fail.
    Differs(String),
    /// The script is not run against it (`# linux: not run — REASON`).
    NotRun(String),
}

/// One line that does or expects something.
#[derive(Clone, PartialEq, Eq, Debug)]
pub struct Line {
    /// Its number in the file, from 1; 0 in a script that was not read from one.
    pub number: usize,
    /// The comment lines right above it, without `#`.
    pub comments: Vec<String>,
    /// When.
    pub when: When,
    /// What.
    pub event: Event,
}

/// When something happens, in microseconds. Only what the server sends may have a range.
#[derive(Clone, PartialEq, Eq, Debug)]
pub enum When {
    /// So long after the line before: `+.1`, `+.1~+.2`.
    After(RangeInclusive<u64>),
    /// So long after the start: `.1`, `.1~.2`.
    At(RangeInclusive<u64>),
    /// Whenever: `*`.
    Any,
}

/// What happens.
#[derive(Clone, PartialEq, Eq, Debug)]
pub enum Event {
    /// `<`: the peer sends this.
    In(Packet),
    /// `>`: the server must send this, and nothing before it.
    Out(Packet),
    /// The server's application does or sees something.
    App(Command),
    /// `silence`: the server sends nothing up to here.
    Silence,
    /// `anything`: what the server sends up to here is not compared, but for its checksums and its bytes.
    Anything,
}

/// A packet, or what one must look like.
#[derive(Clone, PartialEq, Eq, Debug)]
pub struct Packet {
    /// Below TCP.
    pub marks: Marks,
    /// The rest.
    pub body: Body,
}

/// What is said of a packet below TCP, in brackets: `[ce,badsum]`.
#[derive(Clone, Copy, PartialEq, Eq, Debug, Default)]
pub struct Marks {
    /// The ECN field of the IP header (RFC 3168): `noecn`, `ect1`, `ect0`, `ce` for 0 to 3. Sent as 0, not compared, when absent.
    pub ecn: Option<u8>,
    /// Its TCP checksum is wrong: `badsum`. Only `<`.
    pub bad_checksum: bool,
    /// Sent to the link's broadcast address: `broadcast`. Only `<`.
    pub broadcast: bool,
}

/// TCP or ICMP.
#[derive(Clone, PartialEq, Eq, Debug)]
pub enum Body {
    /// A TCP segment.
    Tcp(Tcp),
    /// An ICMP or ICMPv6 error about a segment of the server's. Only `<`.
    Icmp(Icmp),
}

/// From so many bytes of payload on, what the peer sends is cut into segments: 1,401.
pub const BURST_FROM: u32 = 1401;
/// Bytes of payload of those, but for the last.
pub const BURST_PIECE: u32 = 1000;

/// A TCP segment. Sequence numbers count from their sender's initial one, acknowledgement numbers from the other's.
#[derive(Clone, PartialEq, Eq, Debug, Default)]
pub struct Tcp {
    /// `S F R P E W U .`, or `-` for none. Of what the server sends, PSH is compared only where the script has it.
    pub flags: Flags,
    /// First sequence number.
    pub seq: u32,
    /// Bytes of payload: byte `n` of a stream is always `n` modulo 251. More than [`BURST_FROM`] from the peer are sent in
    /// segments of [`BURST_PIECE`].
    pub len: u32,
    /// `ack N`.
    pub ack: Option<u32>,
    /// `ack *`: whether the server's segment acknowledges anything is not compared, nor its flag.
    pub any_ack: bool,
    /// `win N` as on the wire, unscaled. Of what the server sends a range (`win 1~500`) is enough, or nothing.
    pub window: Option<RangeInclusive<u16>>,
    /// `urg N`.
    pub urgent: Option<u16>,
    /// `<...>`. Order and `nop` are not compared.
    pub options: Vec<TcpOption>,
    /// `...` stands among the options: more of them do not matter.
    pub more_options: bool,
}

/// A TCP option. `None`: `*`, not compared.
#[derive(Clone, PartialEq, Eq, Debug)]
pub enum TcpOption {
    /// `nop`.
    Nop,
    /// `eol`.
    End,
    /// `mss N`.
    Mss(Option<u16>),
    /// `wscale N`.
    WindowScale(Option<u8>),
    /// `sackOK`.
    SackPermitted,
    /// `sack LEFT:RIGHT ...`.
    Sack(Vec<(u32, u32)>),
    /// `TS val N ecr N`, milliseconds. The server's values count from the first that it sent; `ecr *` from the peer
    /// echoes the latest.
    Timestamps {
        /// The sender's clock.
        val: Option<u32>,
        /// What it echoes.
        ecr: Option<u32>,
    },
    /// `opt KIND HEX`: any option, by its bytes behind the length.
    Other(u8, Vec<u8>),
}

/// An ICMP error that quotes a segment of the server's.
#[derive(Clone, PartialEq, Eq, Debug)]
pub struct Icmp {
    /// What the router complains about.
    pub trouble: Trouble,
    /// First sequence number of the quoted segment.
    pub seq: u32,
    /// Its bytes of payload.
    pub len: u32,
}

/// What a router or host complains about, in the words of ICMP; ICMPv6 has the same under other numbers.
#[derive(Clone, Copy, PartialEq, Eq, Debug)]
pub enum Trouble {
    /// `unreachable net_unreachable`.
    Net,
    /// `unreachable host_unreachable`.
    Host,
    /// `unreachable protocol_unreachable`; ICMPv6: parameter problem, unknown next header.
    Protocol,
    /// `unreachable port_unreachable`.
    Port,
    /// `unreachable admin_prohibited`.
    Admin,
    /// `unreachable frag_needed mtu N`; ICMPv6: packet too big. Bytes of the IP packet.
    TooBig(u32),
    /// `time_exceeded`.
    TimeExceeded,
    /// `source_quench` (RFC 6633); IPv4 only.
    SourceQuench,
}

/// What the application does, and what it sees.
#[derive(Clone, PartialEq, Eq, Debug)]
pub enum Command {
    /// `accept`: there is a new connection; from here on the commands are about it.
    Accept,
    /// `read N`: takes N bytes, which are there and are the right ones.
    Read(usize),
    /// `write N`: sends the next N bytes.
    Write(usize),
    /// `shutdown`: ends the server's stream.
    Shutdown,
    /// `close`: wants nothing more to do with it; unread bytes, now or later, reset the connection (RFC 1122 4.2.2.13).
    Close,
    /// `abort`: resets it.
    Abort,
    /// `expect eof`: everything is read and the peer has ended its stream.
    ExpectEof,
    /// `expect reset`: the peer has reset it.
    ExpectReset,
    /// `expect timeout`: it was given up.
    ExpectTimeout,
    /// `expect open`: nothing to read, and it is not over.
    ExpectOpen,
}
