//! What duplicate ACKs mean.

use super::*;

/// Ten segments in flight, the first of them lost.
fn ten_in_flight() -> Sender {
    let mut s = sender();
    assert_eq!(send(&mut s, ms(0), MUCH), 10 * MSS);
    s
}

#[test]
fn limited_transmit_then_the_third_duplicate() {
    let mut s = ten_in_flight();
    for expected in [MSS, MSS] {
        let outcome = ack(&mut s, ms(20), 0);
        assert!(outcome.duplicate && !outcome.fast_retransmit);
        assert_eq!(send(&mut s, ms(20), MUCH), expected);
    }
    let outcome = ack(&mut s, ms(20), 0);
    assert!(outcome.duplicate && outcome.fast_retransmit);
    assert_eq!(u64::from(s.ssthresh()), 5 * MSS, "half of the flight without limited transmit");
    assert_eq!(resend(&mut s, ms(20)), [(0, 1000)]);
    assert_eq!(send(&mut s, ms(20), MUCH), 0);
    // RFC 5681 3.2: the window inflated by one segment for each duplicate: 5 + 3 + n against 12 in flight.
    let sent: Vec<u64> = (4..=9)
        .map(|_| {
            assert!(ack(&mut s, ms(20), 0).duplicate);
            send(&mut s, ms(20), MUCH) / MSS
        })
        .collect();
    assert_eq!(sent, [0, 0, 0, 0, 1, 1]);
    let outcome = ack(&mut s, ms(40), 12 * MSS);
    assert_eq!(outcome.newly_acked, 12 * MSS);
    assert!(!s.in_recovery());
    assert_eq!(u64::from(s.cwnd()), 5 * MSS, "ssthresh (RFC 9937 6.1)");
}

#[test]
fn a_partial_acknowledgement_names_the_next_hole() {
    let mut s = ten_in_flight();
    for _ in 0..3 {
        ack(&mut s, ms(20), 0);
    }
    assert_eq!(resend(&mut s, ms(20)), [(0, 1000)]);
    assert_eq!(resend(&mut s, ms(20)), [], "once");
    let first = s.deadline();
    for hole in [3, 5, 8] {
        let outcome = ack(&mut s, ms(20 + hole), hole * MSS);
        assert!(!outcome.duplicate && outcome.newly_acked > 0);
        assert!(s.in_recovery());
        assert_eq!(resend(&mut s, ms(20 + hole)), [(hole * MSS, 1000)]);
    }
    assert!(s.deadline() > first);
    assert_eq!(s.deadline(), Some(ms(23 + 1000)), "only the first partial ACK restarts the timer");
    ack(&mut s, ms(50), 10 * MSS);
    assert!(!s.in_recovery());
}

#[test]
fn what_is_no_duplicate() {
    type Change = fn(&mut Sender) -> AckOutcome;
    let table: [(&str, Change); 5] = [
        ("it carries payload", |s| on_ack(s, ms(20), 0, Some(1 << 20), false)),
        ("it changes the window", |s| on_ack(s, ms(20), 0, Some(1 << 19), true)),
        ("it is too old to tell", |s| on_ack(s, ms(20), 0, None, true)),
        ("it acknowledges something", |s| on_ack(s, ms(20), 1, Some(1 << 20), true)),
        ("its window is closed", |s| on_ack(s, ms(20), 0, Some(0), true)),
    ];
    for (why, change) in table {
        assert!(!change(&mut ten_in_flight()).duplicate, "{why}");
    }
    assert!(ack(&mut ten_in_flight(), ms(20), 0).duplicate);
    let mut idle = sender();
    assert!(!ack(&mut idle, ms(20), 0).duplicate, "nothing is in flight");
    let mut old = ten_in_flight();
    ack(&mut old, ms(20), 5 * MSS);
    assert_eq!(ack(&mut old, ms(20), 4 * MSS), AckOutcome::default(), "it is older than what is known");
}

#[test]
fn duplicates_of_what_was_resent_start_no_second_recovery() {
    let mut s = ten_in_flight();
    assert_eq!(s.on_timeout(ms(1000)), Timeout::Retransmit);
    assert_eq!(resend(&mut s, ms(1000)), [(0, 1000)]);
    ack(&mut s, ms(1020), 10 * MSS);
    assert_eq!(send(&mut s, ms(1020), MUCH), 6 * MSS, "ssthresh, and one for a window acknowledged");
    for _ in 0..5 {
        assert!(!ack(&mut s, ms(1030), 10 * MSS).fast_retransmit);
    }
    assert_eq!(s.next_retransmission(), None);
    // Beyond that point they mean something again.
    ack(&mut s, ms(1040), 11 * MSS);
    send(&mut s, ms(1040), MUCH);
    assert!(!ack(&mut s, ms(1050), 11 * MSS).fast_retransmit);
    assert!(!ack(&mut s, ms(1050), 11 * MSS).fast_retransmit);
    assert!(ack(&mut s, ms(1050), 11 * MSS).fast_retransmit);
}

#[test]
fn a_flood_of_duplicates_opens_nothing_without_bound() {
    let mut s = ten_in_flight();
    let mut sent = 0;
    for _ in 0..100_000 {
        ack(&mut s, ms(20), 0);
        resend(&mut s, ms(20));
        sent += send(&mut s, ms(20), 100 * MSS - sent);
        assert!(s.in_flight() <= 110 * MSS);
    }
    // Each duplicate stands for a segment that left, but never for more than are out, less the missing one.
    assert!(s.left() < s.in_flight());
}
