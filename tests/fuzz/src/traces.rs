//! The bytes of a trace file, pcap or pcapng: through `khamsin-replay`'s reader, list, plans and pictures, and packet by packet
//! into the stack's own dissection.
//!
//! A trace may come from anybody. Every packet is dissected as a frame of its link type, and everything that the dissection
//! names must lie where it says. Nothing is replayed here: a stack keeps its memory for good.

use khamsin_stack::wire::checksum::{verify_icmp, verify_tcp};
use khamsin_stack::wire::{self, Kind, tcp_options};
use khamsin_tools::replay::list::list;
use khamsin_tools::replay::reader::Bounds;
use khamsin_tools::replay::stats::{pictures, svg};
use khamsin_tools::replay::trace::Trace;
use khamsin_tools::replay::world::Plans;
use pcap::{Capture, Linktype};
use std::fs::File;
use std::io::{Seek, Write};
use std::os::fd::AsRawFd;
use std::path::Path;

/// Packets looked at of one file.
const PACKETS_MAX: usize = 10_000;
/// Flows of one file that are drawn: it takes a millisecond each.
const DRAWN_MAX: usize = 2;
/// Longest picture, bytes: sixteen series of 4,000 points, of which the dots take most.
const PICTURE_MAX: usize = 8 << 20;

thread_local! {
    /// One file for all inputs; it has no name any more.
    static FILE: File = tempfile::tempfile_in("/dev/shm").or_else(|_| tempfile::tempfile()).expect("a file for the trace");
}

/// One input of the target `pcap`.
pub fn run(bytes: &[u8]) {
    FILE.with(|mut file| {
        file.set_len(0).expect("the file can be emptied");
        file.rewind().expect("the file has a start");
        file.write_all(bytes).expect("the file takes the trace");
        // By the name of the descriptor: libpcap opens, and closes, a description of its own.
        let path = format!("/proc/self/fd/{}", file.as_raw_fd());
        read(Path::new(&path));
        let Ok(mut capture) = Capture::from_file(path) else { return };
        let link = capture.get_datalink();
        for _ in 0..PACKETS_MAX {
            let Ok(packet) = capture.next_packet() else { return };
            assert_eq!(packet.data.len(), packet.header.caplen as usize);
            match link {
                Linktype::ETHERNET => dissect(packet.data),
                // Without a link layer: the version says which one to put in front.
                Linktype::RAW | Linktype(12) => dissect(&framed(packet.data)),
                _ => {}
            }
        }
    });
}

/// As `khamsin-replay` reads it, up to where it would be replayed.
fn read(path: &Path) {
    let bounds = Bounds { packets: PACKETS_MAX as u64, bytes: 1 << 24, flows: 64 };
    let Ok(trace) = Trace::read(path, &bounds) else { return };
    assert!(trace.flows.len() <= bounds.flows && trace.packets <= bounds.packets);
    let shown = list(&trace);
    assert!(shown.lines().count() == trace.flows.len() + 2, "{shown}");
    let plans = Plans::new(&trace.flows);
    for (index, flow) in trace.flows.iter().enumerate() {
        let pictures = pictures(flow);
        if index < DRAWN_MAX {
            let title = trace.troubles().concat();
            picture(&svg(&title, &pictures).expect("every flow can be drawn"));
        }
        let Some(plan) = plans.of(index) else { continue };
        assert!(plan.steps.iter().all(|step| step.need <= plan.text_end + 1));
        let mut first = [0; 256];
        plan.text.read(flow, 1, &mut first);
        assert_eq!(plan.text.difference(flow, 1, &first), None);
    }
}

/// A picture is of bounded size and of sane numbers, and each of its elements ends.
fn picture(text: &str) {
    assert!(text.len() <= PICTURE_MAX, "{} bytes", text.len());
    let mut open = Vec::new();
    for piece in text.split('<').skip(1) {
        let (tag, content) = piece.split_once('>').expect("a tag ends");
        let name = tag.trim_start_matches('/').split([' ', '/']).next().unwrap_or_default();
        match (tag.starts_with('/'), tag.ends_with('/')) {
            (true, _) => assert_eq!(open.pop(), Some(name), "an element ends that is not open"),
            (false, false) => open.push(name),
            (false, true) => {}
        }
        for (nth, words) in tag.split('"').enumerate().filter(|(nth, _)| nth % 2 == 1) {
            for number in words.split([',', ' ']).filter_map(|word| word.parse::<f64>().ok()) {
                assert!((-2e3..2e4).contains(&number), "{number} in attribute {nth} of {tag}");
            }
        }
        let label = content.trim();
        assert!(!label.chars().any(char::is_control) && !label.contains("NaN") && !label.contains("inf"), "{label:?}");
        assert!(label.len() < 100 || open.last() == Some(&"text"), "{label:?}");
    }
    assert!(open.is_empty(), "{open:?} never end");
}

/// An IP packet in an Ethernet frame.
fn framed(packet: &[u8]) -> Vec<u8> {
    let ethertype: [u8; 2] = if packet.first().is_some_and(|byte| byte >> 4 == 6) { [0x86, 0xdd] } else { [8, 0] };
    [&[2, 0, 0, 0, 0, 2, 2, 0, 0, 0, 0, 1][..], &ethertype, packet].concat()
}

/// Everything that is named lies inside the frame, and everything that reads it copes.
fn dissect(frame: &[u8]) {
    let parsed = wire::parse(frame);
    assert!(usize::from(parsed.link.l2_len) <= frame.len());
    match &parsed.kind {
        Kind::Tcp(s) => {
            let (ip, tcp, payload, end) = (s.ip_at, s.tcp_at, s.payload_at, s.end as usize);
            assert!(ip < tcp && tcp < payload && usize::from(payload) <= end && end <= frame.len(), "{s:?}");
            assert_eq!(s.payload(frame).len(), s.payload_len());
            assert_eq!(s.header(frame).len(), usize::from(payload - tcp));
            assert_eq!(s.packet(frame).len(), end - usize::from(ip));
            let _ = verify_tcp(frame, s);
            let options = tcp_options(s.header(frame));
            assert!(options.sack.len() <= 4 && options.window_scale.is_none_or(|shift| shift <= 14));
            let reset = wire::reset_for(s);
            assert!(!s.flags.rst() || reset.is_none(), "a reset is answered with a reset");
        }
        Kind::Icmp4(d) | Kind::Icmp6(d) => {
            assert!(d.ip_at < d.at && u32::from(d.at) <= d.end && d.end as usize <= frame.len(), "{d:?}");
            let _ = verify_icmp(frame, d);
            let _ = wire::icmp_error(frame, &parsed);
        }
        _ => {}
    }
}
