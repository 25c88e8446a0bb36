//! What SACK blocks mean: RFC 6675, RFC 8985 section 6, RFC 9937.

use super::*;

/// Ten segments in flight since 1 ms.
fn ten_in_flight() -> Sender {
    let mut s = sacker();
    assert_eq!(send(&mut s, ms(1), 10 * MSS), 10 * MSS);
    s
}

/// RFC 8985 6.2 step 4: without reordering, three reported segments leave no tolerance.
#[test]
fn three_reported_segments_behind_a_hole_are_enough() {
    let mut s = ten_in_flight();
    assert!(!sacked(&mut s, ms(21), 0, &[(1, 2)]).fast_retransmit);
    assert!(!sacked(&mut s, ms(21), 0, &[(1, 3)]).fast_retransmit);
    assert_eq!(s.next_retransmission(), None);
    let outcome = sacked(&mut s, ms(21), 0, &[(1, 4)]);
    assert!(outcome.fast_retransmit && outcome.duplicate);
    assert_eq!(resend(&mut s, ms(21)), [(0, 1000)]);
    assert_eq!(u64::from(s.ssthresh()), 7 * MSS, "CUBIC's beta");
}

/// RFC 8985 6.2 step 5 and 6.3: fewer than that wait for a quarter of the round trip.
#[test]
fn one_reported_segment_starts_the_reordering_timer() {
    let mut s = ten_in_flight();
    sacked(&mut s, ms(21), 0, &[(1, 2)]);
    assert_eq!(s.deadline(), Some(ms(26)), "sent at 1 ms, round trip of 20 and a quarter of it");
    assert_eq!(s.on_timeout(ms(25)), Timeout::None);
    assert_eq!(s.on_timeout(ms(26)), Timeout::Late);
    assert!(s.in_recovery());
    assert_eq!(resend(&mut s, ms(26)), [(0, 1000)]);
}

/// RFC 8985 6.2 step 3: what arrives late and was sent once shows reordering; three segments are not enough any more.
#[test]
fn reordering_makes_it_patient() {
    let mut s = ten_in_flight();
    sacked(&mut s, ms(21), 0, &[(1, 2)]);
    sacked(&mut s, ms(22), 2, &[]);
    assert!(!s.in_recovery());
    send(&mut s, ms(22), 2 * MSS);
    let outcome = sacked(&mut s, ms(23), 2, &[(3, 9)]);
    assert!(!outcome.fast_retransmit);
    assert_eq!(s.deadline(), Some(ms(28)), "1 ms + the round trip of 22 ms + a quarter of the least, 20 ms");
}

/// RFC 8985 6.2 step 4: each round trip with a DSACK widens the window by a quarter, for sixteen recoveries.
#[test]
fn duplicates_widen_the_tolerance() {
    let mut s = ten_in_flight();
    sacked(&mut s, ms(21), 0, &[(1, 2)]);
    sacked(&mut s, ms(21), 2, &[(0, 1)]);
    sacked(&mut s, ms(21), 2, &[(0, 1)]);
    let outcome = sacked(&mut s, ms(21), 2, &[(3, 4)]);
    assert!(!outcome.fast_retransmit);
    assert_eq!(s.deadline(), Some(ms(31)), "two quarters; the second report came in the same round trip");
}

/// RFC 8985 6.2 step 2: an ACK that comes too soon after the second copy was drawn by the first.
#[test]
fn an_early_answer_is_not_that_of_the_second_copy() {
    let mut s = ten_in_flight();
    sacked(&mut s, ms(21), 0, &[(1, 4)]);
    resend(&mut s, ms(21));
    sacked(&mut s, ms(22), 4, &[]);
    send(&mut s, ms(22), 2 * MSS);
    assert_eq!(s.next_retransmission(), None, "4 to 9 went out before the second copy and are not lost for it");
    assert!(s.in_recovery());
}

/// RFC 8985 3.2: a retransmission that is lost is seen to be lost by what was sent after it.
#[test]
fn a_lost_retransmission_needs_no_timer() {
    let mut s = ten_in_flight();
    sacked(&mut s, ms(21), 0, &[(1, 4)]);
    assert_eq!(resend(&mut s, ms(21)), [(0, 1000)]);
    sacked(&mut s, ms(22), 0, &[(1, 10)]);
    assert!(send(&mut s, ms(22), MUCH) > 0);
    let outcome = sacked(&mut s, ms(42), 0, &[(1, 11)]);
    assert!(!outcome.fast_retransmit, "it is the same recovery");
    assert_eq!(resend(&mut s, ms(42)), [(0, 1000)]);
}

/// RFC 6675 5: what is lost goes in order, then new data; what was reported never goes again.
#[test]
fn only_the_holes_go_again() {
    let mut s = ten_in_flight();
    sacked(&mut s, ms(21), 0, &[(7, 10), (4, 5), (2, 3)]);
    let mut again = resend(&mut s, ms(21));
    sacked(&mut s, ms(30), 1, &[(7, 10), (4, 5), (2, 3)]);
    again.extend(resend(&mut s, ms(30)));
    sacked(&mut s, ms(41), 3, &[(7, 10), (4, 5)]);
    again.extend(resend(&mut s, ms(41)));
    sacked(&mut s, ms(45), 5, &[(7, 10)]);
    again.extend(resend(&mut s, ms(45)));
    assert_eq!(again, [(0, 1000), (1000, 1000), (3000, 1000), (5000, 1000), (6000, 1000)]);
    sacked(&mut s, ms(65), 10, &[]);
    assert!(!s.in_recovery() && s.is_idle());
    assert_eq!(s.cwnd(), s.ssthresh());
}

/// RFC 9937 6.1: during recovery ssthresh / flight of what arrives goes out, whatever the burst of reports.
#[test]
fn the_window_comes_down_in_proportion() {
    let mut s = sacker();
    for round in 0..2 {
        send(&mut s, ms(1 + round * 20), MUCH);
        let to = s.nxt();
        ack(&mut s, ms(21 + round * 20), to);
    }
    let una = s.una() / MSS;
    assert_eq!(send(&mut s, ms(61), 40 * MSS), 40 * MSS);
    let mut out = 0;
    for seen in 4..=40 {
        sacked(&mut s, ms(81), una, &[(una + 1, una + seen)]);
        out += resend(&mut s, ms(81)).len() as u64 * MSS;
        out += send(&mut s, ms(81), MUCH);
    }
    assert_eq!(s.ssthresh(), 28_000);
    assert!((26 * MSS..=29 * MSS).contains(&out), "0.7 of 40 segments: {out}");
}

/// RFC 2018 8: what was reported and is not acknowledged after all is sent again.
#[test]
fn a_peer_that_takes_back_its_report_is_served() {
    let mut s = ten_in_flight();
    sacked(&mut s, ms(21), 0, &[(1, 10)]);
    resend(&mut s, ms(21));
    // It has thrown 1..10 away: the hole is filled, and nothing beyond it is acknowledged.
    sacked(&mut s, ms(41), 1, &[]);
    let soon = s.deadline().expect("it waits");
    assert!(soon <= ms(55), "{soon:?}");
    assert_eq!(s.on_timeout(soon), Timeout::Retransmit);
    assert_eq!(resend(&mut s, soon), [(1000, 1000)]);
    sacked(&mut s, ms(80), 2, &[]);
    assert_eq!(resend(&mut s, ms(80)).len(), 2);
}

/// RFC 2018 8: a timeout alone does not make it forget a report that holds.
#[test]
fn a_timeout_keeps_the_reports() {
    let mut s = ten_in_flight();
    sacked(&mut s, ms(21), 0, &[(1, 10)]);
    resend(&mut s, ms(21));
    let at = s.deadline().expect("the timer runs");
    assert_eq!(s.on_timeout(at), Timeout::Retransmit);
    assert_eq!(resend(&mut s, at), [(0, 1000)]);
    sacked(&mut s, at.plus_micros(20_000), 10, &[]);
    assert!(s.is_idle() && !s.in_recovery());
}

/// The weakness of counting: the first loss after a recovery, with nothing acknowledged in between.
#[test]
fn a_loss_right_after_a_recovery_needs_no_timer() {
    for sack in [true, false] {
        let mut s = Sender::new(&Setup { mss: 1000, window: 1 << 20, sack, algorithm: Algorithm::NewReno });
        s.seed_rtt(ms(0), 20_000);
        send(&mut s, ms(1), 10 * MSS);
        let blocks = |block: (u64, u64)| if sack { vec![block] } else { vec![] };
        for seen in 2..=4 {
            sacked(&mut s, ms(21), 0, &blocks((1, seen)));
        }
        assert_eq!(resend(&mut s, ms(21)), [(0, 1000)]);
        sacked(&mut s, ms(41), 10, &[]);
        assert!(!s.in_recovery());
        send(&mut s, ms(41), 5 * MSS);
        for seen in 12..=14 {
            sacked(&mut s, ms(61), 10, &blocks((11, seen)));
        }
        assert_eq!(resend(&mut s, ms(61)), [(10_000, 1000)], "SACK {sack}");
    }
}

/// What makes no sense is ignored: beyond what was sent, empty, reversed, below una.
#[test]
fn senseless_blocks_change_nothing() {
    let mut s = ten_in_flight();
    ack(&mut s, ms(21), 2 * MSS);
    for block in [(5, 11), (11, 12), (5, 5), (7, 6), (1, 3)] {
        sacked(&mut s, ms(21), 2, &[(3, 4), block]);
        assert_eq!(s.board().sacked(), 1000, "{block:?}");
    }
    let mut deaf = Sender::new(&Setup { mss: 1000, window: 1 << 20, sack: false, algorithm: Algorithm::Cubic });
    send(&mut deaf, ms(1), 10 * MSS);
    sacked(&mut deaf, ms(21), 0, &[(1, 9)]);
    assert_eq!(deaf.board().sacked(), 0, "SACK was not agreed on");
}

/// A run of lost segments is named at once, for devices that cut; the caller may cut it where it likes.
#[test]
fn retransmissions_come_in_runs() {
    let mut s = sacker();
    for round in 0..4 {
        send(&mut s, ms(1 + round * 20), MUCH);
        let to = s.nxt();
        ack(&mut s, ms(21 + round * 20), to);
    }
    let una = s.una() / MSS;
    let sent = send(&mut s, ms(81), 100 * MSS) / MSS;
    sacked(&mut s, ms(101), una, &[(una + 20, una + sent)]);
    let (offset, len) = s.next_retransmission().expect("lost");
    assert_eq!(offset, una * MSS);
    assert!(len > 10_000 && len % 1000 == 0, "{len}");
    s.retransmitted(ms(101), offset, 3000);
    assert_eq!(s.next_retransmission(), Some((offset + 3000, len - 3000)));
}
