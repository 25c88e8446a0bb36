//! Captures of a queue in memory, read back.

use super::*;
use etherparse::PacketBuilder;
use khamsin_stack::wire::checksum::tcp_pseudo;
use khamsin_stack::{Caps, CloseReason, FlowKey, Frame, Queue, QueueStats, RxChecksum, TxOffload};
use pcap_file::pcapng::blocks::enhanced_packet::{EnhancedPacketBlock, EnhancedPacketOption};
use pcap_file::pcapng::blocks::interface_statistics::InterfaceStatisticsOption;
use pcap_file::pcapng::{Block, PcapNgReader};
use rustix::fs::{CWD, FileType, Mode, OFlags, mknodat};
use std::fs::{File, OpenOptions};
use std::os::unix::fs::OpenOptionsExt;
use std::path::Path;
use std::sync::atomic::Ordering::Relaxed;
use std::time::Duration;

struct Bytes(Vec<u8>);

impl Frame for Bytes {
    fn bytes(&self) -> &[u8] {
        &self.0
    }
    fn bytes_mut(&mut self) -> &mut [u8] {
        &mut self.0
    }
    fn capacity(&self) -> usize {
        self.0.len()
    }
    fn set_len(&mut self, len: usize) {
        self.0.truncate(len);
    }
    fn rx_checksum(&self) -> RxChecksum {
        RxChecksum::Unknown
    }
}

/// Receives what it is given, once.
#[derive(Default)]
struct Given(Vec<Vec<u8>>);

impl Queue for Given {
    type Frame = Bytes;
    fn begin(&mut self) {}
    fn rx_burst(&mut self, burst: &mut Vec<Bytes>, limit: usize) -> usize {
        let count = self.0.len().min(limit);
        burst.extend(self.0.drain(..count).map(Bytes));
        count
    }
    fn alloc_tx(&mut self) -> Option<Bytes> {
        None
    }
    fn tx(&mut self, _: Bytes, _: TxOffload) {}
    fn release(&mut self, _: Bytes) {}
    fn end(&mut self) {}
    fn wait(&mut self, _: Option<Duration>) -> std::io::Result<()> {
        Ok(())
    }
    fn caps(&self) -> Caps {
        Caps { mac: [2; 6], mtu: 1500, rx_partial_checksums: false, tx_checksum: false, tx_segment_max: 0 }
    }
    fn stats(&self) -> QueueStats {
        QueueStats { rx_frames: 7, rx_dropped: 3, ..QueueStats::default() }
    }
}

const PEER: [u8; 4] = [198, 18, 0, 1];
const OURS: [u8; 4] = [198, 18, 0, 2];

/// A segment of the peer's (or, `sent`, of ours) at `seq`.
fn segment(sent: bool, seq: u32, text: &[u8]) -> Vec<u8> {
    let (from, to, ports) = if sent { (OURS, PEER, (80, 4000)) } else { (PEER, OURS, (4000, 80)) };
    let builder = PacketBuilder::ethernet2([2; 6], [4; 6]).ipv4(from, to, 64).tcp(ports.0, ports.1, seq, 1000);
    let mut frame = Vec::new();
    builder.write(&mut frame, text).unwrap();
    frame
}

fn key() -> FlowKey {
    FlowKey::v4(PEER, OURS, 4000, 80)
}

/// The packets of a file, and the statistics of its last interface.
fn read(path: &Path) -> (Vec<EnhancedPacketBlock<'static>>, Vec<InterfaceStatisticsOption<'static>>) {
    let mut reader = PcapNgReader::new(File::open(path).unwrap()).unwrap();
    let (mut packets, mut statistics) = (Vec::new(), Vec::new());
    while let Some(block) = reader.next_block() {
        match block.unwrap().into_owned() {
            Block::EnhancedPacket(packet) => packets.push(packet),
            Block::InterfaceStatistics(block) => statistics = block.options,
            _ => {}
        }
    }
    (packets, statistics)
}

fn comments(packet: &EnhancedPacketBlock<'_>) -> Vec<String> {
    let comment = |o: &EnhancedPacketOption<'_>| match o {
        EnhancedPacketOption::Comment(text) => Some(text.to_string()),
        _ => None,
    };
    packet.options.iter().filter_map(comment).collect()
}

/// One turn of a tapped queue: `received` come in, `sent` go out.
fn turn(queue: &mut Tapped<Given>, received: &[Vec<u8>], sent: &[Vec<u8>]) {
    let mut burst = Vec::new();
    *queue = Tapped { queue: Given(received.to_vec()), tap: queue.tap.take() };
    queue.begin();
    assert_eq!(queue.rx_burst(&mut burst, 64), received.len());
    burst.into_iter().for_each(|frame| queue.release(frame));
    sent.iter().for_each(|bytes| queue.tx(Bytes(bytes.clone()), TxOffload::NONE));
    queue.end();
}

#[test]
fn both_directions_and_a_comment_on_the_last_frame_of_a_connection() {
    let folder = tempfile::tempdir().unwrap();
    let path = folder.path().join("a.pcapng");
    let target = Target::create(&path, None).unwrap();
    let (capture, taps) = target.start("eth0", &["worker 0".into()]).unwrap();
    let mut queue = Tapped::new(Given::default(), taps.into_iter().next());
    assert!(queue.captures());
    let (ask, answer) = (segment(false, 500, b"ask"), segment(true, 900, b"answer"));
    turn(&mut queue, std::slice::from_ref(&ask), &[answer.clone(), answer.clone()]);
    queue.note_end(&key(), CloseReason::PeerReset);
    turn(&mut queue, &[vec![0; 60]], &[]);
    drop(queue);
    drop(capture);
    let (packets, statistics) = read(&path);
    let frames: Vec<&[u8]> = packets.iter().map(|p| &*p.data).collect();
    assert_eq!(frames, [&ask[..], &answer, &answer, &[0; 60]]);
    assert_eq!(packets[0].options, [EnhancedPacketOption::Flags(1)]);
    assert!(packets[1].options.contains(&EnhancedPacketOption::Flags(2)) && comments(&packets[1]).is_empty());
    let said = comments(&packets[2]).join("");
    assert_eq!(
        said,
        "connection of 198.18.0.1:4000: reset by the peer after 0.000 s; received 3 B (0 segments again or late), sent \
         6 B (1 segments again)"
    );
    assert!(statistics.contains(&InterfaceStatisticsOption::IsbIfRecv(7)));
    assert!(statistics.contains(&InterfaceStatisticsOption::IsbIfDrop(3)));
    assert!(statistics.contains(&InterfaceStatisticsOption::IsbOsDrop(0)));
}

#[test]
fn a_full_ring_holds_up_nobody_and_is_counted() {
    let folder = tempfile::tempdir().unwrap();
    let path = folder.path().join("a.pcapng");
    let (mut tap, mut source) = ring::ring(200);
    let frame = segment(false, 500, b"");
    (0..5).for_each(|_| tap.frame(ring::Kind::Received, &frame));
    assert_eq!(tap.missed(), 3);
    assert!(source.body().is_some() && source.body().is_some() && source.body().is_none());
    tap.frame(ring::Kind::Received, &frame);
    assert_eq!(source.body().unwrap().0.missed, 3);

    // The file tells of it too: a ring that no frame fits into.
    let target = Target::create(&path, None).unwrap();
    let (capture, taps) = target.start_with("eth0", &["worker 0".into()], 20).unwrap();
    let mut queue = Tapped::new(Given::default(), taps.into_iter().next());
    turn(&mut queue, &[frame.clone(), frame], &[]);
    assert_eq!(queue.missed(), 2);
    drop((queue, capture));
    let (packets, statistics) = read(&path);
    assert!(packets.is_empty() && statistics.contains(&InterfaceStatisticsOption::IsbOsDrop(2)));
}

#[test]
fn a_filter_leaves_frames_out_and_the_comments_on_them() {
    let folder = tempfile::tempdir().unwrap();
    let path = folder.path().join("a.pcapng");
    let filter: Filter = Box::new(|frame| frame.len() == 60);
    let target = Target::create(&path, Some(("len == 60".into(), filter))).unwrap();
    let (capture, taps) = target.start("eth0", &["worker 0".into()]).unwrap();
    let mut queue = Tapped::new(Given::default(), taps.into_iter().next());
    turn(&mut queue, &[segment(false, 500, b"ask"), vec![0; 60]], &[]);
    queue.note_end(&key(), CloseReason::Finished);
    drop((queue, capture));
    let (packets, statistics) = read(&path);
    assert_eq!((packets.len(), comments(&packets[0]).len()), (1, 0));
    assert!(statistics.contains(&InterfaceStatisticsOption::IsbFilterAccept(1)));
}

#[test]
fn two_workers_share_a_file_in_order_and_a_second_start_begins_it_anew() {
    let folder = tempfile::tempdir().unwrap();
    let path = folder.path().join("a.pcapng");
    let target = Target::create(&path, None).unwrap();
    for _ in 0..2 {
        let (capture, taps) = target.start("eth0", &["worker 0".into(), "worker 1".into()]).unwrap();
        let mut queues: Vec<_> = taps.into_iter().map(|tap| Tapped::new(Given::default(), Some(tap))).collect();
        for i in 0..20 {
            turn(&mut queues[i % 2], &[segment(false, i as u32, b"x")], &[]);
        }
        drop((queues, capture));
        let (packets, _) = read(&path);
        assert_eq!(packets.len(), 20);
        assert_eq!(packets.iter().filter(|p| p.interface_id == 1).count(), 10);
    }
}

#[test]
fn a_file_that_cannot_be_made_is_said_in_a_sentence() {
    let Err(error) = Target::create(Path::new("/nonexistent/a.pcapng"), None) else { panic!("it was made") };
    assert!(error.to_string().contains("/nonexistent/a.pcapng") && error.to_string().contains(';'));
}

/// Nobody reads a FIFO: said at once, where opening it would wait for ever. Who reads and goes away ends the capture, and
/// every frame is counted.
#[test]
fn a_fifo_needs_a_reader() {
    let folder = tempfile::tempdir().unwrap();
    let path = folder.path().join("fifo");
    mknodat(CWD, &path, FileType::Fifo, Mode::RUSR | Mode::WUSR, 0).unwrap();
    let Err(error) = Target::create(&path, None) else { panic!("it was opened") };
    assert!(error.to_string().contains("nobody reads this FIFO"), "{error}");

    let reader = OpenOptions::new().read(true).custom_flags(OFlags::NONBLOCK.bits() as i32).open(&path).unwrap();
    let target = Target::create(&path, None).unwrap();
    let (capture, taps) = target.start("eth0", &["worker 0".into()]).unwrap();
    let mut queue = Tapped::new(Given::default(), taps.into_iter().next());
    drop(reader);
    let frame = vec![0; 1500];
    for _ in 0..1000 {
        turn(&mut queue, std::slice::from_ref(&frame), &[]);
    }
    let progress = capture.progress.clone();
    drop(capture);
    assert_eq!(progress.written.load(Relaxed) + progress.lost.load(Relaxed) + queue.missed(), 1000);
    assert_eq!(queue.taken(), (1000 - queue.missed(), (1000 - queue.missed()) * 1500));
    assert!(progress.written.load(Relaxed) < 1000);
}

/// A reader that stays and stops reading holds up the writer, nobody else; in the end every frame has a place in the sum.
#[test]
fn a_fifo_whose_reader_stops_reading_holds_up_nobody() {
    let folder = tempfile::tempdir().unwrap();
    let path = folder.path().join("fifo");
    mknodat(CWD, &path, FileType::Fifo, Mode::RUSR | Mode::WUSR, 0).unwrap();
    let _reader = OpenOptions::new().read(true).custom_flags(OFlags::NONBLOCK.bits() as i32).open(&path).unwrap();
    let filter: Filter = Box::new(|frame| frame.len() > 60);
    let target = Target::create(&path, Some(("greater 61".into(), filter))).unwrap();
    let (capture, taps) = target.start_with("eth0", &["worker 0".into()], 1 << 20).unwrap();
    let mut queue = Tapped::new(Given::default(), taps.into_iter().next());
    for _ in 0..1000 {
        turn(&mut queue, &[vec![0; 1500], vec![0; 60]], &[]);
    }
    assert!(queue.missed() > 0, "3 MB, of which nobody takes more than a ring of 1 MiB holds");
    let sum = capture.finish();
    assert!(sum.stuck, "{sum:?}");
    // Frames of 60 bytes that the writer has seen are not wanted.
    let rejected = 2000 - sum.written - sum.missing;
    assert!(sum.written < 100 && (1..=1000).contains(&rejected), "a pipe holds 64 KiB: {sum:?}");
    assert_eq!(queue.taken().0 + queue.missed(), 2000);
}

/// What is missing is told with the next frame that the file has, whatever else came in between: a frame that the filter
/// leaves out, the end of a connection.
#[test]
fn what_is_missing_is_told_with_the_next_frame_there_is() {
    let folder = tempfile::tempdir().unwrap();
    let path = folder.path().join("a.pcapng");
    let filter: Filter = Box::new(|frame| frame.len() != 60);
    let target = Target::create(&path, Some(("not len == 60".into(), filter))).unwrap();
    // No frame of 1,500 bytes has room there.
    let (capture, taps) = target.start_with("eth0", &["worker 0".into()], 1000).unwrap();
    let mut queue = Tapped::new(Given::default(), taps.into_iter().next());
    turn(&mut queue, &[vec![0; 1500], vec![0; 60], vec![0; 1500]], &[]);
    queue.note_end(&key(), CloseReason::Finished);
    turn(&mut queue, &[vec![0; 1500], segment(false, 500, b"x"), segment(false, 501, b"y")], &[]);
    drop((queue, capture));
    let (packets, statistics) = read(&path);
    let count = |packet: &EnhancedPacketBlock<'_>| packet.options.contains(&EnhancedPacketOption::DropCount(3));
    assert_eq!(packets.iter().map(count).collect::<Vec<_>>(), [true, false]);
    assert!(statistics.contains(&InterfaceStatisticsOption::IsbOsDrop(3)));
}

/// Somebody who looks at the file, or kills the server, finds what came a moment ago, however little comes.
#[test]
fn a_trickle_is_in_the_file_soon() {
    let folder = tempfile::tempdir().unwrap();
    let path = folder.path().join("a.pcapng");
    let target = Target::create(&path, None).unwrap();
    let (capture, taps) = target.start("eth0", &["worker 0".into()]).unwrap();
    let mut queue = Tapped::new(Given::default(), taps.into_iter().next());
    for i in 0..200 {
        turn(&mut queue, &[segment(false, i, b"x")], &[]);
        std::thread::sleep(Duration::from_millis(2));
    }
    // Whole blocks only: `read` takes no half one.
    let soon = read(&path).0.len();
    drop((queue, capture));
    assert!(soon >= 50, "{soon} of 200 frames were there when the last one came");
    assert_eq!(read(&path).0.len(), 200);
}

/// Connections that end by the thousand at once, as when the server ends: each has its comment, on its last frame or, where
/// that is in the file already, further on.
#[test]
fn thousands_of_ends_at_once_have_their_comments() {
    let folder = tempfile::tempdir().unwrap();
    let path = folder.path().join("a.pcapng");
    let target = Target::create(&path, None).unwrap();
    let (capture, taps) = target.start("eth0", &["worker 0".into()]).unwrap();
    let mut queue = Tapped::new(Given::default(), taps.into_iter().next());
    let peers = |from: u16| (from..from + 3000).map(|port| FlowKey::v4(PEER, OURS, port, 80));
    let frame = |key: FlowKey| {
        let mut frame = Vec::new();
        let builder = PacketBuilder::ethernet2([2; 6], [4; 6]).ipv4(OURS, PEER, 64).tcp(80, key.peer_port, 1, 1000);
        builder.write(&mut frame, &[]).unwrap();
        frame
    };
    turn(&mut queue, &[], &peers(10_000).map(frame).collect::<Vec<_>>());
    // The writer rests twice: these are in the file.
    std::thread::sleep(Duration::from_millis(100));
    turn(&mut queue, &[], &peers(20_000).map(frame).collect::<Vec<_>>());
    peers(20_000).for_each(|key| queue.note_end(&key, CloseReason::Drained));
    peers(10_000).for_each(|key| queue.note_end(&key, CloseReason::Drained));
    turn(&mut queue, &[vec![0; 60]], &[]);
    drop((queue, capture));
    let (packets, _) = read(&path);
    assert_eq!(packets.iter().filter(|p| comments(p).len() == 1).count(), 3000);
    let text = String::from_utf8_lossy(&std::fs::read(&path).unwrap()).matches(": drained after").count();
    assert_eq!(text, 6000);
}

/// A checksum that was left to hardware is in the file as hardware would have made it; a wrong one stays wrong.
#[test]
fn checksums_that_were_left_out_are_made() {
    let folder = tempfile::tempdir().unwrap();
    let path = folder.path().join("a.pcapng");
    let target = Target::create(&path, None).unwrap();
    let (capture, taps) = target.start("eth0", &["worker 0".into()]).unwrap();
    let mut queue = Tapped::new(Given::default(), taps.into_iter().next());
    let link = || PacketBuilder::ethernet2([2; 6], [4; 6]);
    let tagged = || link().single_vlan(5.try_into().unwrap());
    let text = vec![7; 9000];
    let (mut whole, mut partial) = (Vec::new(), Vec::new());
    for (builder, v6, at) in [
        (&(|| link().ipv4(PEER, OURS, 64)) as &dyn Fn() -> _, false, 34),
        (&|| link().ipv6([1; 16], [2; 16], 64), true, 54),
        (&|| tagged().ipv4(PEER, OURS, 64), false, 38),
    ] {
        for len in [0, 1, 9000] {
            let mut frame = Vec::new();
            builder().tcp(4000, 80, 1, 1000).write(&mut frame, &text[..len]).unwrap();
            whole.push(frame.clone());
            let key = if v6 { FlowKey::v6([1; 16], [2; 16], 4000, 80) } else { key() };
            let sum = tcp_pseudo(&key, (frame.len() - at) as u32);
            frame[at + 16..at + 18].copy_from_slice(&sum.to_be_bytes());
            partial.push(frame);
        }
    }
    let mut wrong = whole[0].clone();
    wrong[50] ^= 1;
    whole.push(wrong.clone());
    partial.push(wrong);
    turn(&mut queue, &partial, &partial);
    drop((queue, capture));
    let (packets, _) = read(&path);
    let frames: Vec<_> = packets.iter().map(|p| p.data.to_vec()).collect();
    assert_eq!(frames, [whole.clone(), whole].concat());
}

/// A server that cannot start takes nothing from a file that is there, and two do not write into one.
#[test]
fn a_file_that_is_there_stays_until_the_capture_starts() {
    let folder = tempfile::tempdir().unwrap();
    let path = folder.path().join("a.pcapng");
    std::fs::write(&path, "of yesterday").unwrap();
    let target = Target::create(&path, None).unwrap();
    assert_eq!(std::fs::read(&path).unwrap(), b"of yesterday");
    let Err(error) = Target::create(&path, None) else { panic!("two write into one file") };
    assert!(error.to_string().contains("another process captures into it; "), "{error}");
    drop(target.start("eth0", &["worker 0".into()]).unwrap());
    drop(target);
    assert_eq!(read(&path).0.len(), 0);
    // A process that another test starts at this moment has the lock, too, until it becomes another program.
    let freed = (0..200).any(|_| {
        std::thread::sleep(Duration::from_millis(10));
        Target::create(&path, None).is_ok()
    });
    assert!(freed, "the lock outlives the capture");
}

#[test]
fn a_socket_is_no_fifo() {
    let folder = tempfile::tempdir().unwrap();
    let path = folder.path().join("socket");
    let _listener = std::os::unix::net::UnixListener::bind(&path).unwrap();
    let Err(error) = Target::create(&path, None) else { panic!("it was opened") };
    assert!(!error.to_string().contains("FIFO") && error.to_string().contains("socket"), "{error}");
}

#[test]
fn without_a_tap_nothing_is_copied() {
    let mut queue = Tapped::new(Given(vec![vec![0; 60]]), None);
    let mut burst = Vec::new();
    queue.begin();
    assert_eq!(queue.rx_burst(&mut burst, 64), 1);
    queue.note_end(&key(), CloseReason::Finished);
    assert!(!queue.captures() && queue.missed() == 0);
}
