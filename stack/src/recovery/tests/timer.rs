//! What happens when no ACK comes.

use super::*;

#[test]
fn the_timeout_follows_the_round_trips() {
    let mut s = sender();
    assert_eq!((s.srtt_us(), s.rto_us()), (None, RTO_INITIAL_US));
    // RFC 6298 2.2, 2.3: measured ms -> srtt, rto in ms.
    for (rtt, srtt, rto) in
        [(400, 400_000, 1_200_000), (400, 400_000, 1_000_000), (800, 450_000, 1_300_000), (8, 394_750, 1_474_250)]
    {
        let begin = s.last_sent().plus_micros(10_000_000);
        s.sent(begin, s.nxt(), 10);
        let to = s.nxt();
        ack(&mut s, begin.plus_micros(rtt * 1000), to);
        assert_eq!((s.srtt_us(), s.rto_us()), (Some(srtt), rto), "after {rtt} ms");
    }
    let mut lan = sender();
    lan.seed_rtt(ms(0), 100);
    assert_eq!(lan.rto_us(), RTO_MIN_US + 100);
    // A steady path, however long: an acknowledgement held back for 40 ms (Linux) or 200 ms (Windows) is no loss.
    let mut far = sender();
    for _ in 0..50 {
        far.seed_rtt(ms(0), 190_000);
    }
    assert_eq!(far.rto_us(), 190_000 + RTO_MIN_US);
    let mut moon = sender();
    moon.seed_rtt(ms(0), 100_000_000);
    assert_eq!(moon.rto_us(), RTO_MAX_US);
}

#[test]
fn the_timer_restarts_with_progress_and_stops_when_all_is_acknowledged() {
    let mut s = sender();
    assert_eq!(s.deadline(), None);
    s.sent(ms(0), 0, MSS);
    s.sent(ms(30), MSS, MSS);
    assert_eq!(s.deadline(), Some(ms(1000)), "started by the first segment");
    ack(&mut s, ms(100), MSS);
    assert_eq!(s.rto_us(), 300_000);
    assert_eq!(s.deadline(), Some(ms(400)));
    assert_eq!(s.on_timeout(ms(399)), Timeout::None, "the wheel may come early");
    ack(&mut s, ms(200), 2 * MSS);
    assert_eq!(s.deadline(), None);
    assert_eq!(s.on_timeout(ms(9000)), Timeout::None);
}

#[test]
fn each_timeout_doubles_the_next_and_the_sixteenth_gives_up() {
    let mut s = sender();
    s.seed_rtt(ms(0), 20_000);
    send(&mut s, ms(0), MUCH);
    let (mut waits, mut last) = (Vec::new(), ms(0));
    let end = loop {
        let now = s.deadline().expect("a timer runs as long as something is in flight");
        waits.push(now.micros_since(last) / 1000);
        last = now;
        match s.on_timeout(now) {
            Timeout::Retransmit => assert_eq!(resend(&mut s, now), [(0, 1000)], "a window of one segment"),
            Timeout::GiveUp => break now,
            other => panic!("{other:?}"),
        }
    };
    assert_eq!(waits[..11], [220, 440, 880, 1760, 3520, 7040, 14_080, 28_160, 56_320, 60_000, 60_000]);
    assert_eq!(waits.len(), usize::from(GIVE_UP_AFTER) + 1);
    assert_eq!(end, ms(112_420 + 420_000));
    assert_eq!(s.deadline(), None);
    assert_eq!(u64::from(s.ssthresh()), 5 * MSS, "reduced once, not fifteen times");
}

#[test]
fn after_a_timeout_everything_goes_again_as_the_window_allows() {
    let mut s = sender();
    s.seed_rtt(ms(0), 20_000);
    send(&mut s, ms(0), 10 * MSS);
    assert_eq!(s.on_timeout(ms(220)), Timeout::Retransmit);
    assert_eq!((u64::from(s.cwnd()), u64::from(s.ssthresh())), (MSS, 5 * MSS));
    assert_eq!(resend(&mut s, ms(220)), [(0, 1000)]);
    assert_eq!(s.allowance(ms(220), MUCH, true), 0, "nothing new before what was lost");
    ack(&mut s, ms(240), MSS);
    assert_eq!(resend(&mut s, ms(240)), [(1000, 1000), (2000, 1000)]);
    // The peer had more than we knew: what it has is not sent again.
    ack(&mut s, ms(260), 6 * MSS);
    assert_eq!(resend(&mut s, ms(260)), [(6000, 1000), (7000, 1000), (8000, 1000), (9000, 1000)]);
    assert_eq!(u64::from(s.cwnd()), 5 * MSS, "up to ssthresh");
    ack(&mut s, ms(280), 9 * MSS);
    assert_eq!(send(&mut s, ms(280), MUCH), 5 * MSS, "cwnd 6: one resent, five new");
    assert!(s.in_recovery());
    ack(&mut s, ms(300), 10 * MSS);
    assert!(!s.in_recovery());
}

#[test]
fn a_segment_that_was_sent_twice_measures_nothing() {
    let mut s = sender();
    let (mut now, mut at) = (0, 0);
    for round in 0..9 {
        send(&mut s, ms(now), MSS);
        now += 1000;
        assert_eq!(s.on_timeout(ms(now)), Timeout::Retransmit);
        resend(&mut s, ms(now));
        assert_eq!(s.rto_us(), 2_000_000);
        (now, at) = (now + 1, at + MSS);
        ack(&mut s, ms(now), at);
        // The doubling is taken back a few times; then it stays, until there is a measurement.
        let expected = if round < 8 { 1_000_000 } else { 2_000_000 };
        assert_eq!((s.srtt_us(), s.rto_us()), (None, expected), "{round}");
    }
    send(&mut s, ms(now), MSS);
    assert_eq!(s.deadline(), Some(ms(now + 2000)));
    ack(&mut s, ms(now + 100), at + MSS);
    assert_eq!((s.srtt_us(), s.rto_us()), (Some(100_000), 300_000));
}
