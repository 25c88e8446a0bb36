//! The interface of `--live`: frames through libpcap's packet socket, from addresses that this machine's kernel does not own.
//!
//! The kernel would reset what it does not know. ARP, neighbour discovery and ping for these addresses are answered here, by the
//! stack's [`Responder`], which also asks for the server.

use super::live::Wire;
use super::mapping::Sides;
use anyhow::{Context, Result, bail};
use khamsin_drivers::clock::Clock;
use khamsin_stack::Counters;
use khamsin_stack::wire::parse;
use khamsin_stack::wire::responder::{Addresses, Responder, ResponderConfig};
use pcap::{Active, Capture};
use std::net::IpAddr;
use std::thread::sleep;
use std::time::Duration;

/// Sleep between two looks at the interface: libpcap's own wait has no end on Linux.
pub(super) const PAUSE: Duration = Duration::from_micros(200);
/// How long a server has to say where it is, microseconds: three questions.
const ASK_US: u64 = 4_000_000;
/// Room for one answer, bytes.
const ANSWER_MAX: usize = 1514;
/// The ring that frames come through, bytes: libpcap gives each the room of the longest, so that 2 MiB, which it takes otherwise, are
/// full with 32 of them.
const RING: i32 = 64 << 20;
/// Pings answered in a second.
const PINGS_PER_S: u32 = 100;

/// The open interface.
pub(super) struct Port {
    capture: Capture<Active>,
    pub(super) mac: [u8; 6],
    responder: Responder,
    reply: Vec<u8>,
    counters: Counters,
    /// Frames received and sent.
    pub(super) frames: (u64, u64),
}

impl Port {
    /// Opens the interface for clients with the addresses `mine`, which talk to the servers of `sides`.
    pub(super) fn open(wire: &Wire, sides: &[Sides], mine: Vec<IpAddr>) -> Result<Port> {
        let name = &wire.interface;
        // Netlink, not /sys: the thread may live in another network namespace than the one that /sys was mounted in.
        let link = khamsin_drivers::link::by_name(name)?;
        if link.mac == [0; 6] && !link.loopback {
            bail!("{name} is no Ethernet; name an interface that has a MAC address");
        }
        let mac = link.mac;
        let refused = || format!("{name} cannot be opened for raw frames; run as root or with CAP_NET_RAW");
        let capture = Capture::from_device(name.as_str()).with_context(refused)?;
        let capture = capture.immediate_mode(true).promisc(true).snaplen(65_535).buffer_size(RING);
        let mut capture = capture.open().and_then(Capture::setnonblock).with_context(refused)?;
        let servers: Vec<String> = sides.iter().map(|sides| format!("src host {}", sides.server)).collect();
        let filter = format!("arp or icmp6 or (tcp and ({}))", servers.join(" or "));
        capture.filter(&filter, true).context("the filter")?;
        let asked = if wire.mac.is_none() { sides.iter().map(|sides| sides.server).collect() } else { vec![] };
        let responder = responder(mac, mine, asked);
        let reply = vec![0; ANSWER_MAX];
        Ok(Port { capture, mac, responder, reply, counters: Counters::default(), frames: (0, 0) })
    }

    pub(super) fn send(&mut self, frame: &[u8]) -> Result<()> {
        self.frames.1 += 1;
        self.capture.sendpacket(frame).context("a frame cannot be sent; is the interface up, and its MTU 1500?")
    }

    /// The next frame of somebody else's, if there is one.
    pub(super) fn receive(&mut self) -> Result<Option<Vec<u8>>> {
        match self.capture.next_packet() {
            Ok(packet) => {
                self.frames.0 += 1;
                Ok(Some(packet.data.to_vec()))
            }
            Err(pcap::Error::TimeoutExpired | pcap::Error::NoMorePackets) => Ok(None),
            Err(error) => Err(error).context("frames cannot be received"),
        }
    }

    /// Frames that came faster than they were taken, and are missing.
    pub(super) fn missing(&mut self) -> u32 {
        self.capture.stats().map_or(0, |stats| stats.dropped)
    }

    /// Answers what is not TCP.
    pub(super) fn answer(&mut self, frame: &[u8]) -> Result<()> {
        let parsed = parse(frame);
        let answered = self.responder.answer(Clock.now(), frame, &parsed, &mut self.reply, &mut self.counters);
        self.reply(answered)
    }

    /// Announces the clients' addresses and asks for servers, as far as that is due.
    pub(super) fn speak(&mut self) -> Result<()> {
        while let Some(len) = self.responder.poll(Clock.now(), &mut self.reply, &mut self.counters) {
            self.reply(Some(len))?;
        }
        Ok(())
    }

    fn reply(&mut self, len: Option<usize>) -> Result<()> {
        let Some(len) = len else { return Ok(()) };
        let frame = self.reply[..len].to_vec();
        self.send(&frame)
    }

    /// Where `server` is, asked for on the link.
    pub(super) fn resolve(&mut self, server: IpAddr) -> Result<[u8; 6]> {
        let end = Clock.now().plus_micros(ASK_US);
        while Clock.now() < end {
            self.speak()?;
            let mapped = match server {
                IpAddr::V4(v4) => v4.to_ipv6_mapped(),
                IpAddr::V6(v6) => v6,
            };
            let mac = self.responder.route(&mapped.octets(), [0; 6]);
            if mac != [0; 6] {
                return Ok(mac);
            }
            match self.receive()? {
                Some(frame) => self.answer(&frame)?,
                None => sleep(PAUSE),
            }
        }
        bail!("nobody on the link answers for {server}; give the router's address with --mac if it is not on the link")
    }
}

/// Answers for the addresses `mine`, and asks for those of the servers `asked`.
fn responder(mac: [u8; 6], mine: Vec<IpAddr>, asked: Vec<IpAddr>) -> Responder {
    // None of them is on a link with the server, as it were: whoever is asked for is found, wherever it lies.
    let own = mine.into_iter().map(|address| (address, if address.is_ipv4() { 32 } else { 128 })).collect();
    let config =
        ResponderConfig { mac, addresses: Addresses::Own(own), gateways: asked, echo_limit_per_s: PINGS_PER_S };
    // Whoever knows an address from the replay before hears of it. What is lost of that is asked for.
    Responder::new(config).announcing_once()
}

#[cfg(test)]
mod tests {
    use super::*;
    use khamsin_stack::Instant;
    use khamsin_stack::wire::Kind;

    #[test]
    fn each_address_is_announced_once_whoever_plays_it() {
        let mine: Vec<IpAddr> =
            ["198.18.1.1", "198.18.1.2", "198.18.1.1", "fd00::1:1", "198.18.1.1"].map(|a| a.parse().unwrap()).into();
        let mut responder = responder([2, 0, 0, 0, 0, 1], mine, vec!["198.18.0.2".parse().unwrap()]);
        let (mut reply, mut counters, mut now) = ([0; ANSWER_MAX], Counters::default(), Instant::ZERO);
        let mut kinds = Vec::new();
        while kinds.len() < 20 {
            match responder.poll(now, &mut reply, &mut counters) {
                Some(len) => kinds.push(matches!(parse(&reply[..len]).kind, Kind::Arp)),
                None if now >= Instant::from_millis(1500) => break,
                None => now = now.plus_micros(500_000),
            }
        }
        // Three announcements; and the server is asked for, once a second.
        assert_eq!((kinds.len() - 3, kinds.iter().filter(|arp| !**arp).count()), (2, 1), "{kinds:?}");
    }
}
