//! Frames of every kind into a shard's turn: link and network layers, ARP, neighbour discovery, ICMP, fragments, TCP of
//! nobody's.
//!
//! An input is a first byte that chooses the device and whose the addresses are, then frames, each behind a control byte
//! and a length (two bytes). The control byte says whether checksums are made right first, which a fuzzer cannot do
//! itself, and how much time passes.

use crate::packet::{PEER_MAC, SERVER_MAC};
use crate::source::{Input, Source};
use crate::world::{KINDS, World, config, limits, parking};
use core::time::Duration;
use khamsin_stack::wire::checksum::{Verdict, data, fold, pseudo_without_len, tcp_pseudo, verify_icmp, verify_tcp};
use khamsin_stack::wire::{self, Addresses, Kind};
use khamsin_stack::{Frame, RxChecksum};
use std::cell::RefCell;

/// Frames in one input.
const FRAMES_MAX: usize = 512;
/// Frames that a turn may send of its own accord: announcements, and questions for two gateways.
const OWN_MAX: u64 = 16;

/// Bits of a control byte.
const FIX_SUMS: u8 = 4;
const FOR_US: u8 = 8;
const HOLD: u8 = 16;

thread_local! {
    static WORLDS: RefCell<[Option<World>; 2 * KINDS]> = const { RefCell::new([const { None }; 2 * KINDS]) };
}

/// One input of the target `frames`.
pub fn run(bytes: &[u8]) {
    let mut input = Input::new(bytes);
    let kind = usize::from(input.byte()) % (2 * KINDS);
    WORLDS.with_borrow_mut(|worlds| {
        let world = worlds[kind].get_or_insert_with(|| world(kind));
        for _ in 0..FRAMES_MAX {
            if input.is_empty() {
                break;
            }
            one(world, &mut input);
        }
        turn(world);
        world.settle(look);
    });
}

fn world(kind: usize) -> World {
    let mut config = config(limits());
    if kind >= KINDS {
        config.addresses = Addresses::Shared;
        config.limits = parking();
    }
    World::new(kind % KINDS, config)
}

fn one(world: &mut World, input: &mut Input<'_>) {
    let control = input.byte();
    let len = usize::from(input.word());
    let bytes = input.take(len);
    let mut frame = world.ring.blank(bytes.len());
    frame.bytes_mut().copy_from_slice(bytes);
    if control & FOR_US != 0
        && let Some(macs) = frame.bytes_mut().first_chunk_mut::<12>()
    {
        macs[..6].copy_from_slice(&SERVER_MAC);
        macs[6..].copy_from_slice(&PEER_MAC);
    }
    let mut checksum = RxChecksum::Unknown;
    if control & FIX_SUMS != 0 {
        fix_sums(frame.bytes_mut());
        // What a device says of a checksum is true.
        checksum = [checksum, checksum, RxChecksum::Valid, RxChecksum::Partial][usize::from(control & 3)];
    }
    world.ring.receive(frame, checksum);
    if control & HOLD == 0 || world.ring.waiting() >= khamsin_stack::queue::BURST {
        turn(world);
        let step_ms = [0, 0, 1, 40, 1000, 3000, 61_000, 600_000][usize::from(control >> 5)];
        world.pass(Duration::from_millis(step_ms), 64, look);
    }
}

/// One turn: to each frame there is one answer at most.
fn turn(world: &mut World) {
    let (sent, due) = (world.ring.sent, world.ring.waiting() as u64);
    let (quiet, half_open) = (world.shard.live() == 0, world.shard.half_open() as u64);
    world.turn();
    let sent = world.ring.sent - sent;
    assert!(!quiet || world.shard.live() > 0 || sent <= due + half_open + OWN_MAX, "{sent} answers to {due} frames");
    look(world);
    world.rest(&mut look);
}

/// Everything that is sent can be read, and nothing of it goes to more than it should.
fn look(world: &mut World) {
    let mut sent = core::mem::take(&mut world.ring.tx);
    for sent in sent.drain(..) {
        let bytes = sent.frame.bytes();
        let parsed = wire::parse(bytes);
        assert_eq!(parsed.link.src, SERVER_MAC, "somebody else's MAC: {bytes:02x?}");
        match &parsed.kind {
            Kind::Tcp(segment) => {
                assert!(!parsed.link.group_dst() && !segment.group_dst, "TCP to a group: {bytes:02x?}");
                let verdict = verify_tcp(bytes, segment);
                let partial = sent.offload.checksum_start.is_some() && verdict == Verdict::PseudoHeaderOnly;
                assert!(verdict == Verdict::Valid || partial, "{bytes:02x?}");
            }
            Kind::Icmp4(datagram) => {
                assert!(!parsed.link.group_dst() && !datagram.group_dst, "ICMP to a group: {bytes:02x?}");
                assert!(verify_icmp(bytes, datagram), "{bytes:02x?}");
            }
            Kind::Icmp6(datagram) => assert!(verify_icmp(bytes, datagram), "{bytes:02x?}"),
            Kind::Arp | Kind::Fragment(_) => {}
            odd => panic!("a frame that nobody can read: {odd:?} {bytes:02x?}"),
        }
        world.ring.complete(sent);
    }
    world.ring.tx = sent;
}

/// Makes the checksums of an IPv4 header and of the TCP or ICMP in the packet right, where they can be found.
fn fix_sums(frame: &mut [u8]) {
    let ip_at = match frame.get(12..14) {
        Some([0x81, 0]) => 18,
        Some([0x88, 0xa8]) => 22,
        Some(_) => 14,
        None => return,
    };
    if let Some(header) = frame.get(ip_at).map(|byte| usize::from(byte & 15) * 4)
        && frame[ip_at] >> 4 == 4
        && let Some(ip) = frame.get_mut(ip_at..ip_at + header)
        && header >= 20
    {
        ip[10..12].fill(0);
        let sum = !data(ip);
        ip[10..12].copy_from_slice(&sum.to_be_bytes());
    }
    let (at, end, field, pseudo) = match wire::parse(frame).kind {
        Kind::Tcp(s) => {
            let len = s.end - u32::from(s.tcp_at);
            (usize::from(s.tcp_at), s.end as usize, 16, u64::from(tcp_pseudo(&s.key, len)))
        }
        Kind::Icmp4(d) => (usize::from(d.at), d.end as usize, 2, 0),
        Kind::Icmp6(d) => {
            let len = u64::from(d.end) - u64::from(d.at);
            (usize::from(d.at), d.end as usize, 2, u64::from(pseudo_without_len(&d.peer, &d.local, 58)) + len)
        }
        _ => return,
    };
    let Some(message) = frame.get_mut(at..end).filter(|message| message.len() >= field + 2) else { return };
    message[field..field + 2].fill(0);
    let sum = !fold(pseudo + u64::from(data(message)));
    message[field..field + 2].copy_from_slice(&sum.to_be_bytes());
}
