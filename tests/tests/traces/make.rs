//! What is in `tests/traces`: a trace for each link type and each trouble, and files that are damaged.

use super::file::{PLAIN, Style, pcap, pcap_header, pcapng, relink, tagged};
use super::talk::{Shot, Talk, body};
use khamsin_drivers::sim::client::{ACK, Blocks, PSH, RST, SYN, Segment};

/// Names and bytes of all of them.
pub(crate) fn all() -> Vec<(&'static str, Vec<u8>)> {
    [links(), troubles(), damaged()].concat()
}

fn exchange() -> Vec<Shot> {
    Talk::v4().open().http(3_000).close().take()
}

fn exchange_v6() -> Vec<Shot> {
    Talk::new("[2001:db8::1]:40000", "[2001:db8::2]:80").open().http(3_000).close().take()
}

fn links() -> Vec<(&'static str, Vec<u8>)> {
    let (v4, v6) = (exchange(), exchange_v6());
    let bare = |shots: &[Shot]| relink(shots, |_| Vec::new());
    let mut both = [v4.clone(), v6.clone()].concat();
    both.sort_by_key(|(at_ns, _)| *at_ns);
    let nano = Style { nanos: true, ..PLAIN };
    let big = Style { big_endian: true, ..PLAIN };
    let cooked = |kind: [u8; 2]| [&[0, 0, 0, 1, 0, 6, 2, 0, 0, 0, 0, 2, 0, 0][..], &kind].concat();
    let cooked2 = |kind: [u8; 2]| [&kind[..], &[0, 0, 0, 0, 0, 2, 0, 1, 0, 6, 2, 0, 0, 0, 0, 2, 0, 0]].concat();
    let family = |kind: [u8; 2]| vec![if kind == [8, 0] { 2 } else { 24 }, 0, 0, 0];
    let family_be = |kind: [u8; 2]| vec![0, 0, 0, if kind == [8, 0] { 2 } else { 24 }];
    vec![
        ("link-ethernet.pcap", pcap(PLAIN, 1, &both)),
        ("link-ethernet-big-endian.pcap", pcap(big, 1, &v4)),
        ("link-ethernet-nanoseconds.pcap", pcap(nano, 1, &v4)),
        ("link-ethernet-nanoseconds-big-endian.pcap", pcap(Style { big_endian: true, ..nano }, 1, &v6)),
        ("link-ethernet-vlan.pcap", pcap(PLAIN, 1, &tagged(&v4, &[[0x81, 0, 0, 7]]))),
        ("link-ethernet-qinq.pcap", pcap(PLAIN, 1, &tagged(&v6, &[[0x88, 0xa8, 0, 9], [0x81, 0, 0, 7]]))),
        ("link-raw.pcap", pcap(PLAIN, 101, &bare(&both))),
        ("link-ipv4.pcap", pcap(PLAIN, 228, &bare(&v4))),
        ("link-ipv6.pcap", pcap(PLAIN, 229, &bare(&v6))),
        ("link-null.pcap", pcap(PLAIN, 0, &relink(&both, family))),
        ("link-null-big-endian.pcap", pcap(big, 0, &relink(&both, family_be))),
        ("link-loop.pcap", pcap(PLAIN, 108, &relink(&both, family_be))),
        ("link-cooked.pcap", pcap(PLAIN, 113, &relink(&both, cooked))),
        ("link-cooked2.pcap", pcap(PLAIN, 276, &relink(&both, cooked2))),
        ("link-ethernet.pcapng", pcapng(PLAIN, 1, &both)),
        ("link-ethernet-nanoseconds.pcapng", pcapng(nano, 1, &both)),
        ("link-cooked2-big-endian.pcapng", pcapng(Style { big_endian: true, ..nano }, 276, &relink(&v4, cooked2))),
    ]
}

fn troubles() -> Vec<(&'static str, Vec<u8>)> {
    let file = |shots: Vec<Shot>| pcap(PLAIN, 1, &shots);
    let offloaded = |shots: Vec<Shot>| file(from_client(shots, |frame| frame[50] ^= 0xff));
    vec![
        ("trouble-snaplen.pcap", pcap(Style { snaplen: 96, ..PLAIN }, 1, &exchange())),
        ("trouble-snaplen-header.pcap", pcap(Style { snaplen: 60, ..PLAIN }, 1, &exchange())),
        ("trouble-snaplen-options.pcap", pcap(Style { snaplen: 60, ..PLAIN }, 1, &scaled())),
        ("trouble-loss.pcap", file(loss())),
        (
            "trouble-server-packet-missed.pcap",
            file(Talk::v4().open().up(b"GET").down(&body(900)).missed().down(b"tail").ack(true).close().take()),
        ),
        (
            "trouble-client-packet-missed.pcap",
            file(
                Talk::v4()
                    .open()
                    .up(b"GET ")
                    .up(b"missed")
                    .missed()
                    .up(b" end")
                    .ack(false)
                    .down(b"fine")
                    .ack(true)
                    .close()
                    .take(),
            ),
        ),
        ("trouble-ports-again.pcap", file([Talk::v4().open().http(500).close().take(), again()].concat())),
        ("trouble-reset-by-client.pcap", file(reset(true))),
        ("trouble-reset-by-server.pcap", file(reset(false))),
        ("trouble-refused.pcap", file(refused())),
        ("trouble-no-answer.pcap", file(Talk::v4().syn().wait_us(1_000_000).take())),
        ("trouble-middle.pcap", file(exchange().split_off(4))),
        ("trouble-one-sided.pcap", file(one_sided())),
        ("trouble-text-on-syn.pcap", file(text_on_syn())),
        ("trouble-wrong-checksum.pcap", file(wrong_checksum())),
        ("trouble-offloaded-checksums.pcap", offloaded(exchange())),
        ("trouble-offloaded-no-text.pcap", offloaded(Talk::v4().open().close().take())),
        ("trouble-wild-sequence.pcap", file(wild())),
        (
            "trouble-super-segments.pcap",
            file(Talk::v4().open().up(&body(30_000)).ack(false).down(&body(9_000)).ack(true).close().take()),
        ),
        ("trouble-fragments.pcap", file(fragments())),
        ("trouble-fragments-v6.pcap", file(fragments_v6(true))),
        ("trouble-fragment-missed.pcap", file(fragments_v6(false))),
    ]
}

/// The same with another word in the client's frames.
fn from_client(mut shots: Vec<Shot>, change: impl Fn(&mut Vec<u8>)) -> Vec<Shot> {
    shots.iter_mut().filter(|(_, frame)| frame[..6] == [2, 0, 0, 0, 0, 1]).for_each(|(_, frame)| change(frame));
    shots
}

/// Windows that let the text through only when they are scaled.
fn scaled() -> Vec<Shot> {
    let shots = Talk::v4().open().up(b"GET").down(&body(20_000)).ack(true).close().take();
    from_client(shots, |frame| frame[48..50].copy_from_slice(&502_u16.to_be_bytes()))
}

/// The server's first segment is lost; the client reports the hole.
fn loss() -> Vec<Shot> {
    let mut talk = Talk::v4();
    talk.open().up(b"GET /").ack(false);
    let first = talk.down;
    let whole = body(6_000);
    for (i, piece) in whole.chunks(1000).enumerate() {
        talk.down(piece);
        if i > 0 {
            let mut sack = Blocks::default();
            sack.push(first.wrapping_add(1000), talk.down);
            let draft = talk.draft(true, ACK, b"");
            talk.shot(true, Segment { ack: first, sack, ..draft });
        }
    }
    let again = Segment { seq: first, ..talk.draft(false, ACK | PSH, &whole[..1000]) };
    talk.wait_us(10_000).shot(false, again).ack(true).close().take()
}

/// One of the client's segments was hurt on its way, and comes again.
fn wrong_checksum() -> Vec<Shot> {
    let mut talk = Talk::v4();
    talk.open().up(b"one").up(b"two").up(b"three");
    let hurt = talk.shots.last_mut().expect("three segments were recorded");
    hurt.1[50] ^= 0xff;
    let seq = talk.up.wrapping_sub(5);
    let again = Segment { seq, ..talk.draft(true, ACK | PSH, b"three") };
    talk.wait_us(200_000).shot(true, again).up(b"four").ack(false).close().take()
}

fn again() -> Vec<Shot> {
    let mut talk = Talk::v4();
    talk.at_ns += 90_000_000_000;
    talk.up = talk.up.wrapping_add(1 << 20);
    talk.open().http(700).close().take()
}

fn reset(by_client: bool) -> Vec<Shot> {
    let mut talk = Talk::v4();
    talk.open().up(b"GET /").ack(false).down(b"half an ans").ack(true);
    let draft = talk.draft(by_client, RST | ACK, b"");
    talk.shot(by_client, draft).take()
}

fn refused() -> Vec<Shot> {
    let mut talk = Talk::v4();
    talk.syn();
    let draft = Segment { seq: 0, ..talk.draft(false, RST | ACK, b"") };
    talk.shot(false, draft).take()
}

fn one_sided() -> Vec<Shot> {
    let mut shots = exchange();
    shots.retain(|(_, frame)| frame[..6] == [2, 0, 0, 0, 0, 1]);
    shots
}

fn text_on_syn() -> Vec<Shot> {
    let mut talk = Talk::v4();
    let draft = Segment { mss: Some(1460), ..talk.draft(true, SYN, b"early") };
    talk.shot(true, draft);
    talk.up = talk.up.wrapping_add(1);
    talk.syn_ack().ack(true).up(b"early").down(b"late").ack(true).close().take()
}

/// Numbers that jump by 100 MB, both ways.
fn wild() -> Vec<Shot> {
    let mut talk = Talk::v4();
    talk.open();
    for from_client in [true, false] {
        let draft = talk.draft(from_client, ACK | PSH, b"wild");
        talk.shot(from_client, Segment { seq: draft.seq.wrapping_add(100_000_000), ..draft });
        let draft = talk.draft(from_client, ACK, b"");
        talk.shot(from_client, Segment { ack: draft.ack.wrapping_add(100_000_000), ..draft });
    }
    talk.up(b"tame").down(b"tame").ack(true).close().take()
}

/// The request comes in two fragments.
fn fragments() -> Vec<Shot> {
    let mut talk = Talk::v4();
    talk.open().up(&[7; 44]);
    let (at_ns, whole) = talk.shots.pop().expect("the request was recorded");
    for (offset, more) in [(0, true), (32, false)] {
        let end = if more { 14 + 20 + 32 } else { whole.len() };
        let mut frame = [&whole[..34], &whole[34 + offset..end]].concat();
        let len = frame.len() as u16 - 14;
        frame[16..18].copy_from_slice(&len.to_be_bytes());
        frame[20..22].copy_from_slice(&[if more { 0x20 } else { 0 }, (offset / 8) as u8]);
        talk.shots.push((at_ns, frame));
    }
    talk.ack(false).close().take()
}

/// The answer comes in three fragments, the last one first; or the last one is missing.
fn fragments_v6(whole: bool) -> Vec<Shot> {
    let mut talk = Talk::new("[2001:db8::1]:40000", "[2001:db8::2]:80");
    talk.open().up(b"GET /").ack(false).down(&body(100));
    let (at_ns, frame) = talk.shots.pop().expect("the answer was recorded");
    let packet = &frame[54..];
    let cut = |from: usize, to: usize| {
        let more = u16::from(to < packet.len());
        let header = [&[6, 0][..], &(from as u16 + more).to_be_bytes(), &7_u32.to_be_bytes()].concat();
        let mut shot = [&frame[..54], &header, &packet[from..to]].concat();
        shot[18..20].copy_from_slice(&(8 + (to - from) as u16).to_be_bytes());
        shot[20] = 44;
        (at_ns, shot)
    };
    let pieces = [cut(96, packet.len()), cut(0, 48), cut(48, 96)];
    talk.shots.extend(pieces.into_iter().skip(usize::from(!whole)));
    talk.ack(true).close().take()
}

fn damaged() -> Vec<(&'static str, Vec<u8>)> {
    let whole = pcap(PLAIN, 1, &exchange());
    let absurd = [&pcap_header(PLAIN, 1)[..], &[1; 8], &[0xff; 8], &[0; 100]].concat();
    let mut udp = exchange();
    udp.iter_mut().for_each(|(_, frame)| frame[23] = 17);
    let mut later = whole.clone();
    let third = 24 + 2 * 16 + exchange()[0].1.len() + exchange()[1].1.len();
    later[third + 8..third + 16].copy_from_slice(&[0xff; 8]);
    vec![
        ("damaged-empty.pcap", Vec::new()),
        ("damaged-cut-header.pcap", whole[..10].to_vec()),
        ("damaged-cut-packet.pcap", whole[..whole.len() - 700].to_vec()),
        ("damaged-absurd-length.pcap", absurd),
        ("damaged-absurd-length-later.pcap", later),
        ("damaged-zero-snaplen.pcap", [&pcap_header(Style { snaplen: 0, ..PLAIN }, 1)[..], &whole[24..]].concat()),
        ("damaged-no-packets.pcap", pcap_header(PLAIN, 1)),
        ("damaged-no-tcp.pcap", pcap(PLAIN, 1, &udp)),
        ("damaged-link-type.pcap", pcap(PLAIN, 105, &exchange())),
        ("damaged-text.pcap", b"This is no trace at all, but a line of text.\n".to_vec()),
        ("damaged-cut-block.pcapng", pcapng(PLAIN, 1, &exchange())[..500].to_vec()),
    ]
}
