//! What may be sent for the first time.

use super::*;

#[test]
fn the_initial_window_is_ten_segments() {
    for (mss, bytes) in [(1460, 14_600), (536, 5360), (1448, 14_480), (9000, 18_000), (1, 10), (65_535, 131_070)] {
        let mut s = new(mss, 1 << 30);
        assert_eq!(u64::from(s.cwnd()), bytes, "mss {mss}");
        assert_eq!(send(&mut s, ms(0), MUCH), bytes, "mss {mss}");
    }
}

/// RFC 5681 3.1, RFC 3465 without a limit per ACK (RFC 9406 4.2).
#[test]
fn slow_start_grows_by_what_is_acknowledged() {
    let mut s = sender();
    assert_eq!(send(&mut s, ms(0), MUCH), 10 * MSS);
    for (to, acked, cwnd, more) in [(1, 1, 11, 2), (3, 2, 13, 4), (10, 7, 20, 14)] {
        assert_eq!(ack(&mut s, ms(20), to * MSS).newly_acked, acked * MSS);
        assert_eq!(u64::from(s.cwnd()), cwnd * MSS);
        assert_eq!(send(&mut s, ms(20), MUCH), more * MSS, "after the ACK of {to}");
    }
}

#[test]
fn a_window_that_is_not_used_does_not_grow() {
    let mut s = sender();
    for echo in 1..100 {
        assert_eq!(send(&mut s, ms(echo), 64), 64);
        ack(&mut s, ms(echo), echo * 64);
    }
    assert_eq!(u64::from(s.cwnd()), 10 * MSS);
}

#[test]
fn a_burst_of_acks_between_two_sends_still_counts() {
    // 64 frames are read before anything is sent: the flight shrinks, but the window was full when it went out.
    let mut s = sender();
    send(&mut s, ms(0), MUCH);
    for to in [2, 4, 6, 8, 10] {
        ack(&mut s, ms(20), to * MSS);
    }
    assert_eq!(u64::from(s.cwnd()), 20 * MSS);
}

/// RFC 5681 3.1.
#[test]
fn newreno_adds_a_segment_for_each_window() {
    let mut s = sender();
    send(&mut s, ms(0), MUCH);
    for _ in 0..3 {
        ack(&mut s, ms(20), 0);
    }
    resend(&mut s, ms(20));
    let end = s.nxt();
    ack(&mut s, ms(30), end);
    assert_eq!((s.cwnd(), s.ssthresh()), (5000, 5000));
    let (mut now, mut rounds) = (40, Vec::new());
    for _ in 0..6 {
        let n = send(&mut s, ms(now), MUCH);
        let to = s.nxt();
        for at in (to - n + MSS..=to).step_by(MSS as usize) {
            ack(&mut s, ms(now + 10), at);
        }
        rounds.push(u64::from(s.cwnd()) / MSS);
        now += 10;
    }
    assert_eq!(rounds, [6, 7, 8, 9, 10, 11]);
}

/// RFC 5681 4.1, softened as RFC 2861 and Linux do: half for each timeout that passes, not below the initial window.
#[test]
fn a_long_pause_brings_the_window_back_to_its_start() {
    for (pause_ms, cwnd) in [(220, 80), (221, 40), (440, 20), (660, 10), (60_000, 10)] {
        let mut s = sender();
        for round in 0..3 {
            send(&mut s, ms(round * 20), MUCH);
            let to = s.nxt();
            ack(&mut s, ms(round * 20 + 20), to);
        }
        assert_eq!((u64::from(s.cwnd()), s.rto_us()), (80 * MSS, 20_000 + RTO_MIN_US));
        s.allowance(ms(40 + pause_ms), MUCH, false);
        assert_eq!(u64::from(s.cwnd()), cwnd * MSS, "after {pause_ms} ms");
        s.allowance(ms(40 + pause_ms), MUCH, false);
        assert_eq!(u64::from(s.cwnd()), cwnd * MSS, "asking twice changes nothing");
    }
}

#[test]
fn segments_shorter_than_the_mss_wait_unless_they_are_all_there_is() {
    // window, unsent, FIN waits -> allowed
    let table = [
        (10_000, 2_500, false, 2_500),
        (10_000, 2_500, true, 2_501),
        (2_500, 2_500, true, 2_500),
        (2_500, 2_501, false, 2_000),
        (2_500, 9_000, true, 2_000),
        (900, 5_000, false, 900),
        (900, 900, true, 900),
        (900, 0, true, 1),
        (0, 5_000, true, 0),
        (0, 0, true, 0),
    ];
    for (window, unsent, fin, allowed) in table {
        let mut s = new(MSS as usize, window);
        assert_eq!(s.allowance(ms(0), unsent, fin), allowed, "window {window}, {unsent} bytes, FIN {fin}");
    }
    // Once the peer has shown a window of 10,000, 900 bytes are silly and 5,000 are not (but whole segments are sent).
    let mut s = new(MSS as usize, 10_000);
    on_ack(&mut s, ms(0), 0, Some(900), true);
    assert_eq!(s.allowance(ms(0), 5_000, false), 0);
    assert_eq!(s.allowance(ms(0), 800, false), 800);
}

#[test]
fn a_fin_alone_is_not_held_by_the_congestion_window() {
    let mut s = sender();
    assert_eq!(send(&mut s, ms(0), 10 * MSS), 10 * MSS);
    assert_eq!(s.allowance(ms(0), 1, false), 0);
    assert_eq!(s.allowance(ms(0), 0, true), 1);
}

#[test]
fn a_window_that_shrinks_allows_nothing_and_breaks_nothing() {
    let mut s = sender();
    send(&mut s, ms(0), MUCH);
    assert!(on_ack(&mut s, ms(20), 2 * MSS, Some(3 * MSS), true).window_changed);
    assert_eq!((s.una(), s.in_flight(), s.window()), (2 * MSS, 8 * MSS, 3000));
    assert_eq!(s.allowance(ms(20), MUCH, true), 0);
    // Nothing more than its window goes again after a timeout, beside the oldest segment.
    assert_eq!(s.on_timeout(s.deadline().unwrap()), Timeout::Retransmit);
    assert_eq!(resend(&mut s, ms(2000)), [(2 * MSS, 1000)]);
    on_ack(&mut s, ms(2020), 3 * MSS, Some(MSS), true);
    assert_eq!(resend(&mut s, ms(2020)), [(3 * MSS, 1000)]);
}

#[test]
fn a_new_segment_size_counts_from_now_on() {
    let mut s = new(1460, 1 << 20);
    s.handshake_was_lost();
    assert_eq!(send(&mut s, ms(0), MUCH), 1460);
    assert_eq!(s.on_timeout(s.deadline().unwrap()), Timeout::Retransmit);
    s.set_mss(500);
    assert_eq!(resend(&mut s, ms(1000)), [(0, 500), (500, 500), (1000, 460)]);
    s.set_mss(8000);
    assert!(s.cwnd() >= 8000);
}
