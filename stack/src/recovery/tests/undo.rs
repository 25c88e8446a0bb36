//! Reductions that were wrong: RFC 3522, 3708, 4015, 5682.

use super::*;

/// Forty segments in flight since 61 ms, the window full.
fn full_window() -> (Sender, u64) {
    let mut s = sacker();
    for round in 0..2 {
        send(&mut s, ms(1 + 20 * round), MUCH);
        let to = s.nxt();
        ack(&mut s, ms(21 + 20 * round), to);
    }
    let una = s.una() / MSS;
    assert_eq!(send(&mut s, ms(61), 41 * MSS), 40 * MSS);
    (s, una)
}

/// A fast retransmit of something that was merely late, and the peer says that it has it twice (RFC 3708 3).
#[test]
fn dsack_of_all_that_went_again_takes_the_reduction_back() {
    let (mut s, una) = full_window();
    sacked(&mut s, ms(81), una, &[(una + 2, una + 6)]);
    assert_eq!(resend(&mut s, ms(81)).len(), 2);
    assert!(s.cwnd() < 41_000);
    sacked(&mut s, ms(83), una + 6, &[]);
    assert!(!sacked(&mut s, ms(101), una + 10, &[(una, una + 1)]).undone, "one of two");
    assert!(sacked(&mut s, ms(101), una + 10, &[(una + 1, una + 2)]).undone);
    assert!(!s.in_recovery());
    assert!(s.cwnd() >= 40_000 && s.ssthresh() == u32::MAX, "{} {}", s.cwnd(), s.ssthresh());
}

/// A duplicate is reported once, and the acknowledgement that does so may be overtaken by a later one (Linux: `old_ack`).
#[test]
fn a_report_that_was_overtaken_counts() {
    let (mut s, una) = full_window();
    sacked(&mut s, ms(81), una, &[(una + 2, una + 6)]);
    assert_eq!(resend(&mut s, ms(81)).len(), 2);
    sacked(&mut s, ms(83), una + 6, &[]);
    sacked(&mut s, ms(101), una + 12, &[(una + 1, una + 2)]);
    let board = s.una();
    let late = sacked(&mut s, ms(102), una + 11, &[(una, una + 1)]);
    assert!(late.undone && !late.duplicate && late.newly_acked == 0, "{late:?}");
    assert!(s.cwnd() >= 40_000 && s.ssthresh() == u32::MAX && s.una() == board);
    // A block beyond its own number that has been acknowledged since is no report of a duplicate.
    let (mut s, una) = full_window();
    sacked(&mut s, ms(81), una, &[(una + 1, una + 6)]);
    assert_eq!(resend(&mut s, ms(81)).len(), 1);
    sacked(&mut s, ms(101), una + 12, &[]);
    assert!(!sacked(&mut s, ms(102), una, &[(una + 1, una + 8)]).undone);
    assert_eq!(s.board().sacked(), 0);
}

/// The reports come a round trip after the retransmission, and by then the next reduction may have begun: both are taken
/// back, whichever is refuted first; and when only the first is, the second counts from where the first began.
#[test]
fn a_reduction_upon_a_wrong_one_is_wrong_too() {
    for order in [[0, 40], [40, 0]] {
        let (mut s, una) = full_window();
        sacked(&mut s, ms(81), una, &[(una + 1, una + 6)]);
        assert_eq!(resend(&mut s, ms(81)), [(una * MSS, 1000)]);
        sacked(&mut s, ms(82), una + 40, &[]);
        assert!(!s.in_recovery());
        let new = send(&mut s, ms(82), MUCH) / MSS;
        assert!(new > 12);
        sacked(&mut s, ms(102), una + 40, &[(una + 41, una + 40 + new)]);
        let late = s.deadline().expect("it waits for what is late");
        if !s.in_recovery() {
            assert_eq!(s.on_timeout(late), Timeout::Late);
        }
        assert_eq!(resend(&mut s, late), [((una + 40) * MSS, 1000)]);
        assert!(s.ssthresh() < 20_000, "0.7 of 0.7 of 40 segments");
        for (i, first) in order.into_iter().enumerate() {
            let duplicate = (una + first, una + first + 1);
            sacked(&mut s, late.plus_micros(20_000), una + 40 + new, &[duplicate]);
            if i == 0 && first == 0 {
                assert_eq!(s.ssthresh(), 28_000, "0.7 of 40 segments");
            }
        }
        assert!(s.cwnd() >= 40_000 && s.ssthresh() == u32::MAX, "{order:?}: {} {}", s.cwnd(), s.ssthresh());
    }
}

#[test]
fn a_duplicate_that_only_one_of_two_had_takes_nothing_back() {
    let (mut s, una) = full_window();
    sacked(&mut s, ms(81), una, &[(una + 2, una + 6)]);
    resend(&mut s, ms(81));
    sacked(&mut s, ms(101), una + 40, &[(una, una + 1)]);
    assert!(!s.in_recovery() && s.ssthresh() < u32::MAX);
}

/// RFC 3522 3.2: the ACK of what a timeout sent again echoes the first copy's timestamp.
#[test]
fn a_timestamp_of_the_first_copy_takes_it_back() {
    for (sent, undone) in [(Some(ms(61)), true), (None, false)] {
        let (mut s, una) = full_window();
        assert_eq!(s.on_timeout(s.deadline().expect("a timer runs")), Timeout::TailLoss);
        resend(&mut s, ms(110));
        let at = s.deadline().expect("a timer runs");
        assert_eq!(s.on_timeout(at), Timeout::Retransmit);
        assert_eq!(s.stamp(at, una * MSS, MSS), at, "a timeout's has the time of then");
        resend(&mut s, at);
        let news = Ack { ack: (una + 1) * MSS, window: Some(1 << 20), pure: true, echoed: sent, ..Ack::default() };
        let outcome = s.on_ack(at.plus_micros(1000), &news);
        assert_eq!((outcome.undone, s.in_recovery()), (undone, !undone), "{sent:?}");
    }
}

/// A fast retransmission has the timestamp of its first copy: an echo of that says nothing, the report of both copies does.
#[test]
fn a_timestamp_that_both_copies_have_takes_nothing_back() {
    let (mut s, una) = full_window();
    sacked(&mut s, ms(81), una, &[(una + 1, una + 6)]);
    assert_eq!(s.stamp(ms(81), una * MSS, MSS), ms(61));
    assert_eq!(resend(&mut s, ms(81)).len(), 1);
    let srtt = s.srtt_us();
    let echoed = Some(ms(61));
    let news = Ack { ack: (una + 6) * MSS, window: Some(1 << 20), pure: true, echoed, ..Ack::default() };
    assert!(!s.on_ack(ms(95), &news).undone && s.in_recovery());
    assert_eq!(s.srtt_us(), srtt, "it measures no round trip either");
    assert!(sacked(&mut s, ms(101), una + 7, &[(una, una + 1)]).undone);
}

/// An ACK for what a former recovery sent again says nothing about the present one.
#[test]
fn a_timestamp_of_an_earlier_retransmission_takes_nothing_back() {
    let (mut s, una) = full_window();
    sacked(&mut s, ms(81), una, &[(una + 1, una + 30)]);
    resend(&mut s, ms(81));
    // In recovery something new is lost and sent again, and the recovery ends before its ACK comes.
    let new = send(&mut s, ms(81), MUCH) / MSS;
    assert!(new > 4);
    sacked(&mut s, ms(101), una + 40, &[(una + 41, una + 40 + new)]);
    assert_eq!(resend(&mut s, ms(101)), [((una + 40) * MSS, 1000)]);
    send(&mut s, ms(102), MUCH);
    sacked(&mut s, ms(120), una + 40, &[(una + 42 + new, una + 46 + new), (una + 41, una + 40 + new)]);
    resend(&mut s, ms(120));
    let echoed = Some(ms(101));
    let news = Ack { ack: (una + 40 + new) * MSS, window: Some(1 << 20), pure: true, echoed, ..Ack::default() };
    assert!(!s.on_ack(ms(121), &news).undone);
}

/// RFC 5682 2.1: after a timeout the first ACK lets new data go; if the second moves on, nothing had been lost.
#[test]
fn a_timeout_that_was_too_early_is_taken_back() {
    for sack in [true, false] {
        let mut s = Sender::new(&Setup { mss: 1000, window: 1 << 20, sack, algorithm: Algorithm::Cubic });
        s.seed_rtt(ms(0), 20_000);
        send(&mut s, ms(1), MUCH);
        let mut at = s.deadline().expect("a timer runs");
        if sack {
            assert_eq!(s.on_timeout(at), Timeout::TailLoss);
            send(&mut s, at, MUCH);
            at = s.deadline().expect("a timer runs");
        }
        let before = s.nxt();
        assert_eq!(s.on_timeout(at), Timeout::Retransmit);
        assert_eq!(resend(&mut s, at), [(0, 1000)]);
        ack(&mut s, at.plus_micros(1000), MSS);
        assert_eq!(resend(&mut s, at.plus_micros(1000)), [], "step 2b: new data first");
        assert_eq!(send(&mut s, at.plus_micros(1000), MUCH), 2 * MSS);
        assert_eq!(s.nxt(), before + 2 * MSS);
        let outcome = ack(&mut s, at.plus_micros(2000), 2 * MSS);
        assert!(outcome.undone, "SACK {sack}: step 3b");
        assert!(!s.in_recovery() && s.cwnd() >= 10_000 && s.ssthresh() == u32::MAX);
        assert_eq!(resend(&mut s, at.plus_micros(2000)), []);
    }
}

/// RFC 5682 2.1 step 3a: duplicates after the new data mean that the loss was real.
#[test]
fn a_timeout_that_was_right_stays() {
    let mut s = sender();
    s.seed_rtt(ms(0), 20_000);
    send(&mut s, ms(1), MUCH);
    assert_eq!(s.on_timeout(ms(221)), Timeout::Retransmit);
    resend(&mut s, ms(221));
    ack(&mut s, ms(241), MSS);
    assert_eq!(send(&mut s, ms(241), MUCH), 2 * MSS);
    assert!(!ack(&mut s, ms(261), MSS).undone);
    assert_eq!(resend(&mut s, ms(261)).first(), Some(&(1000, 1000)), "now what was lost");
    // Without SACK an ACK that also covers what went again proves nothing.
    assert!(!ack(&mut s, ms(281), 5 * MSS).undone);
    assert!(s.in_recovery());
}

/// RFC 5682 3.1 step 2b, RFC 8985 7.3: where silly window avoidance holds new data back, there is none. What was lost goes
/// again at once, and not one segment for each timeout.
#[test]
fn new_data_that_the_window_holds_back_delays_no_repair() {
    for sack in [true, false] {
        let mut s = Sender::new(&Setup { mss: 1000, window: 10_500, sack, algorithm: Algorithm::Cubic });
        s.seed_rtt(ms(0), 20_000);
        assert_eq!(send(&mut s, ms(1), MUCH), 10_000);
        let mut at = s.deadline().expect("a timer runs");
        if sack {
            assert_eq!(s.on_timeout(at), Timeout::TailLoss);
            assert_eq!(send(&mut s, at, MUCH), 0);
            assert_eq!(resend(&mut s, at), [(9000, 1000)], "the last segment is the probe");
            at = s.deadline().expect("a timer runs");
        }
        assert_eq!(s.on_timeout(at), Timeout::Retransmit);
        assert_eq!(resend(&mut s, at), [(0, 1000)]);
        // The application does not read: the edge stays where it was.
        on_ack(&mut s, at.plus_micros(20_000), 1000, Some(9500), true);
        assert_eq!(send(&mut s, at.plus_micros(20_000), MUCH), 0);
        assert_eq!(resend(&mut s, at.plus_micros(20_000)), [(1000, 1000), (2000, 1000)], "SACK {sack}");
    }
}

/// A mark comes while a wrong reduction is not refuted yet. When it is, the mark still counts: from where that one began. (Found by
/// [`any_order`](super::any_order): the threshold was infinite again, and where the reduction ended, so was the window.)
#[test]
fn what_a_mark_costs_is_not_taken_back() {
    let (mut s, una) = full_window();
    sacked(&mut s, ms(81), una, &[(una + 1, una + 6)]);
    assert_eq!(resend(&mut s, ms(81)), [(una * MSS, 1000)]);
    sacked(&mut s, ms(101), una + 40, &[]);
    assert!(!s.in_recovery());
    send(&mut s, ms(102), MUCH);
    let marked = Ack { ack: (una + 41) * MSS, window: Some(1 << 20), pure: true, ece: true, ..Ack::default() };
    s.on_ack(ms(122), &marked);
    let all = s.nxt() / MSS;
    assert!(sacked(&mut s, ms(123), all, &[(una, una + 1)]).undone_earlier);
    assert!(s.ssthresh() < 41_000 && s.cwnd() < 41_000, "{} {}", s.ssthresh(), s.cwnd());
}
