use super::*;
use crate::bed::{self, Bed, KERNEL_V4};
use crate::socket::connect_from;
use khamsin_drivers::sim::PathConfig;
use std::io::{Read, Write};
use std::net::TcpListener;
use std::sync::atomic::{AtomicBool, Ordering};
use std::time::Duration;

#[test]
fn frames_of_the_connection_are_told_from_others() {
    let mut frame = vec![0; 14 + 24 + 20];
    (frame[12], frame[13], frame[14], frame[23]) = (0x08, 0x00, 0x46, 6);
    frame[38..42].copy_from_slice(&[0, 80, 0x12, 0x34]);
    assert!(belongs(&frame, Side::Left, 0x1234));
    assert!(!belongs(&frame, Side::Left, 80));
    assert!(belongs(&frame, Side::Right, 80));
    assert!(!belongs(&frame[..41], Side::Left, 0x1234), "cut short");
    frame[23] = 17;
    assert!(!belongs(&frame, Side::Left, 0x1234), "UDP");
    let mut frame = vec![0; 14 + 40 + 20];
    (frame[12], frame[13], frame[20]) = (0x86, 0xdd, 6);
    frame[54..58].copy_from_slice(&[0x12, 0x34, 0, 80]);
    assert!(belongs(&frame, Side::Right, 0x1234));
    assert!(!belongs(&[0xff; 60], Side::Right, 0xffff), "ARP or anything else");
}

#[test]
fn a_disturbed_passage_objects() {
    let fine = Passage { written: 1000, late: 10, stall_max_us: 20_000, ..Passage::default() };
    assert_eq!(fine.objection(), None);
    for disturbed in [
        Passage { late: 11, ..fine },
        Passage { stall_max_us: 20_001, ..fine },
        Passage { overrun: 1, ..fine },
        Passage { refused: 1, ..fine },
    ] {
        assert!(disturbed.objection().is_some(), "{disturbed:?}");
    }
}

/// A kernel on each side: what is sent arrives, later by the way there and back, and the path sees every segment.
#[test]
fn carries_a_connection_between_two_kernels() {
    if let Some(reason) =
        bed::refusal().or_else(|| (!std::path::Path::new("/dev/net/tun").exists()).then(|| "no TUN".into()))
    {
        println!("SKIPPED carries_a_connection_between_two_kernels: {reason}");
        return;
    }
    let (bed, mut middlebox) = Bed::taps().unwrap();
    let listener = bed.server.enter(|| TcpListener::bind((KERNEL_V4, 9)).unwrap()).unwrap();
    let config = PathConfig {
        delay_us: 5_000,
        duplicate_per_million: 100_000,
        loss_per_million: 10_000,
        ..PathConfig::default()
    };
    let mut path = Path::symmetric(1, config);
    let over = AtomicBool::new(false);
    let sent = crate::pages::pattern(300_000, 4);
    std::thread::scope(|scope| {
        let server = scope.spawn(|| {
            let mut got = Vec::new();
            listener.accept().unwrap().0.read_to_end(&mut got).unwrap();
            got
        });
        let carrier = scope.spawn(|| {
            let passage = middlebox.forward(&mut path, 50_000, |_, _| over.load(Ordering::Relaxed)).unwrap();
            (passage, path.stats(Side::Right), path.stats(Side::Left))
        });
        let bytes = sent.clone();
        let took = bed
            .client()
            .enter(move || {
                std::net::UdpSocket::bind("0.0.0.0:0").unwrap().send_to(b"x", (KERNEL_V4, 7)).unwrap();
                std::thread::sleep(Duration::from_millis(50));
                let start = Clock.now();
                let mut stream = connect_from(
                    50_000,
                    std::net::SocketAddr::new(KERNEL_V4.parse().unwrap(), 9),
                    Duration::from_secs(5),
                )
                .unwrap();
                let took = Clock.now().since(start);
                stream.write_all(&bytes).unwrap();
                took
            })
            .unwrap();
        assert!(took >= Duration::from_millis(10), "the handshake took {took:?}");
        assert!(server.join().unwrap() == sent, "what arrives is what was sent");
        over.store(true, Ordering::Relaxed);
        let (passage, there, back) = carrier.join().unwrap();
        assert!(there.offered > 200 && there.duplicated > 5 && back.offered > 10, "{there:?} {back:?}");
        assert_eq!((passage.overrun, passage.refused), (0, 0));
        assert!(passage.plain >= 3, "ARP and a datagram");
        assert_eq!(passage.read[0] + passage.read[1], passage.plain + there.offered + back.offered);
    });
}
