//! Recorded traffic, read by etherparse and by us.

use std::fs;
use std::path::PathBuf;

use super::*;

const ETHERNET: u32 = 1;

/// The packets of a classic pcap file with Ethernet frames; `None` for other files.
fn frames(bytes: &[u8]) -> Option<Vec<&[u8]>> {
    let little = match bytes.first_chunk::<4>()? {
        [0xd4, 0xc3, 0xb2, 0xa1] | [0x4d, 0x3c, 0xb2, 0xa1] => true,
        [0xa1, 0xb2, 0xc3, 0xd4] | [0xa1, 0xb2, 0x3c, 0x4d] => false,
        _ => return None,
    };
    let word = |at: usize| {
        let word = *bytes.get(at..)?.first_chunk()?;
        Some(if little { u32::from_le_bytes(word) } else { u32::from_be_bytes(word) })
    };
    if word(20)? != ETHERNET {
        return None;
    }
    let mut frames = Vec::new();
    let mut at = 24;
    while let Some(len) = word(at + 8) {
        frames.push(bytes.get(at + 16..at + 16 + len as usize)?);
        at += 16 + len as usize;
    }
    Some(frames)
}

/// The recordings, or a word why there are none.
fn traces() -> Vec<(String, Vec<u8>)> {
    let folder = std::env::var_os("KHAMSIN_TRACES")
        .map_or_else(|| PathBuf::from(concat!(env!("CARGO_MANIFEST_DIR"), "/../../shared/traces")), PathBuf::from);
    let folder = if folder.is_dir() { folder } else { PathBuf::from("/work/shared/traces") };
    let Ok(entries) = fs::read_dir(&folder) else {
        eprintln!("SKIPPED: no recorded traffic at {} (set KHAMSIN_TRACES)", folder.display());
        return Vec::new();
    };
    let files = entries.map(|e| e.unwrap().path()).filter(|p| p.extension().is_some_and(|e| e == "pcap"));
    files.map(|p| (p.file_name().unwrap().to_string_lossy().into_owned(), fs::read(p).unwrap())).collect()
}

#[test]
fn recorded_segments_are_read_as_etherparse_reads_them() {
    let mut segments = 0;
    for (name, bytes) in traces() {
        let Some(frames) = frames(&bytes) else { continue };
        for (nth, frame) in frames.iter().enumerate() {
            let Kind::Tcp(segment) = parse(frame).kind else { continue };
            segments += 1;
            let sliced = etherparse::LaxSlicedPacket::from_ethernet(frame).unwrap();
            let Some(etherparse::TransportSlice::Tcp(tcp)) = &sliced.transport else {
                panic!("{name}, packet {}: etherparse finds no TCP", nth + 1)
            };
            assert_eq!(
                (tcp.source_port(), tcp.destination_port(), tcp.sequence_number(), tcp.acknowledgment_number()),
                (segment.key.peer_port, segment.key.local_port, segment.seq, segment.ack),
                "{name}, packet {}",
                nth + 1
            );
            assert_eq!(tcp.payload(), segment.payload(frame), "{name}, packet {}", nth + 1);
            let ours = tcp_options(segment.header(frame));
            let mss = tcp.options_iterator().filter_map(Result::ok).find_map(|o| match o {
                etherparse::TcpOptionElement::MaximumSegmentSize(mss) => Some(mss),
                _ => None,
            });
            assert_eq!(ours.mss, mss, "{name}, packet {}", nth + 1);
        }
    }
    eprintln!("{segments} segments");
    assert!(segments == 0 || segments > 2500);
}

/// What is not taken as TCP must be something that etherparse does not take as sound TCP either.
#[test]
fn no_recorded_segment_is_missed() {
    for (name, bytes) in traces() {
        let Some(frames) = frames(&bytes) else { continue };
        for (nth, frame) in frames.iter().enumerate() {
            let kind = parse(frame).kind;
            let Ok(sliced) = etherparse::SlicedPacket::from_ethernet(frame) else { continue };
            let tcp = matches!(sliced.transport, Some(etherparse::TransportSlice::Tcp(_)));
            match (tcp, kind) {
                (true, Kind::Tcp(_)) | (false, _) => {}
                // etherparse checks no IPv4 header checksum.
                (true, Kind::Drop(DropReason::IpChecksum)) => {}
                // Recorded on a loopback interface, or made up with a group address as its source.
                (true, Kind::Drop(DropReason::Martian))
                    if frame[6] & 1 != 0 || frame.windows(4).any(|w| w == [127, 0, 0, 1]) => {}
                (true, other) => panic!("{name}, packet {}: {other:?}", nth + 1),
            }
        }
    }
}

#[test]
fn tagged_and_fragmented_recordings() {
    for (name, bytes) in traces() {
        let Some(frames) = frames(&bytes) else { continue };
        let parsed: Vec<Parsed> = frames.iter().map(|f| parse(f)).collect();
        let segments = parsed.iter().filter_map(|p| match p.kind {
            Kind::Tcp(segment) => Some((p.link, segment)),
            _ => None,
        });
        match name.as_str() {
            "zeek-http-vlan-0.pcap" => {
                assert!(segments.clone().count() > 0);
                assert!(segments.clone().all(|(link, _)| link.vlan.vid() == Some(0)), "priority-tagged");
            }
            "zeek-ipv6-http-atomic-frag.pcap" => {
                assert!(segments.clone().any(|(_, s)| !s.plain && !s.key.is_v4()), "atomic fragments pass");
            }
            _ => {}
        }
    }
}
