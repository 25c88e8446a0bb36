//! What happens when the peer has no room.

use super::*;

/// Ten segments sent and acknowledged with a closed window; more waits.
fn closed() -> Sender {
    let mut s = sender();
    s.seed_rtt(ms(0), 20_000);
    send(&mut s, ms(0), MUCH);
    on_ack(&mut s, ms(20), 10 * MSS, Some(0), true);
    assert_eq!(send(&mut s, ms(20), 5 * MSS), 0);
    s
}

/// Lets the timer expire, sends the probe and lets the peer refuse it.
fn probe(s: &mut Sender) -> (Instant, u64, u32) {
    let now = s.deadline().expect("the probe timer runs");
    assert_eq!(s.on_timeout(now), Timeout::Probe);
    let (offset, len) = s.probe();
    if offset == s.nxt() {
        s.sent(now, offset, u64::from(len));
    } else {
        s.retransmitted(now, offset, u64::from(len));
    }
    (now, offset, len)
}

#[test]
fn it_is_probed_with_one_byte_ever_more_seldom_and_for_ever_while_answered() {
    let mut s = closed();
    let (mut last, mut waits) = (ms(20), Vec::new());
    for _ in 0..100 {
        let (now, offset, len) = probe(&mut s);
        assert_eq!((offset, len), (10 * MSS, 1));
        waits.push(now.micros_since(last) / 1000);
        last = now;
        assert!(!on_ack(&mut s, now.plus_micros(20_000), 10 * MSS, Some(0), true).duplicate);
        assert_eq!(send(&mut s, now.plus_micros(20_000), 5 * MSS - 1), 0);
        assert_eq!(s.next_retransmission(), None);
    }
    assert_eq!(waits[..10], [220, 440, 880, 1760, 3520, 7040, 14_080, 28_160, 56_320, 60_000]);
    assert_eq!(waits[99], 60_000);
    assert_eq!(u64::from(s.cwnd()), 20 * MSS, "a closed window is no congestion");
}

#[test]
fn opened_again_the_refused_byte_goes_first() {
    let mut s = closed();
    probe(&mut s);
    on_ack(&mut s, ms(240), 10 * MSS, Some(0), true);
    let (now, ..) = probe(&mut s);
    assert!(on_ack(&mut s, now, 10 * MSS, Some(8000), true).window_changed);
    assert_eq!(resend(&mut s, now), [(10 * MSS, 1)]);
    assert_eq!(send(&mut s, now, 5 * MSS - 1), 5 * MSS - 1);
    ack(&mut s, now.plus_micros(20_000), 15 * MSS);
    assert!(s.is_idle() && s.deadline().is_none() && !s.is_probing());
}

#[test]
fn a_byte_that_is_taken_is_not_sent_again() {
    let mut s = closed();
    let (now, ..) = probe(&mut s);
    on_ack(&mut s, now, 10 * MSS + 1, Some(0), true);
    assert_eq!(send(&mut s, now, 5 * MSS - 1), 0);
    let (_, offset, len) = probe(&mut s);
    assert_eq!((offset, len), (10 * MSS + 1, 1));
    on_ack(&mut s, ms(9000), 10 * MSS + 2, Some(20_000), true);
    assert_eq!(s.next_retransmission(), None);
    assert_eq!(send(&mut s, ms(9000), 5 * MSS - 2), 5 * MSS - 2);
}

#[test]
fn unanswered_probes_give_up() {
    let mut s = closed();
    for _ in 0..GIVE_UP_AFTER {
        probe(&mut s);
    }
    assert_eq!(s.on_timeout(s.deadline().unwrap()), Timeout::GiveUp);
}

#[test]
fn it_opens_by_itself_before_the_first_probe() {
    let mut s = closed();
    on_ack(&mut s, ms(100), 10 * MSS, Some(1 << 20), true);
    assert_eq!(send(&mut s, ms(100), 5 * MSS), 5 * MSS);
    assert_eq!(s.deadline(), Some(ms(320)), "now the retransmission timer");
}

#[test]
fn a_sliver_of_a_window_is_used_when_the_timer_expires() {
    let mut s = closed();
    on_ack(&mut s, ms(50), 10 * MSS, Some(300), true);
    assert_eq!(send(&mut s, ms(50), 5 * MSS), 0, "silly");
    assert_eq!(s.deadline(), Some(ms(240)), "an ACK does not push it back");
    assert_eq!(probe(&mut s), (ms(240), 10 * MSS, 300));
}

#[test]
fn closed_over_data_in_flight_it_is_probed_too() {
    let mut s = sender();
    s.seed_rtt(ms(0), 20_000);
    send(&mut s, ms(0), MUCH);
    on_ack(&mut s, ms(20), 2 * MSS, Some(0), true);
    let cwnd = s.cwnd();
    let (_, offset, len) = probe(&mut s);
    assert_eq!((offset, len), (2 * MSS, 1));
    assert_eq!(s.cwnd(), cwnd);
    on_ack(&mut s, ms(400), 2 * MSS, Some(1 << 20), true);
    assert_eq!(resend(&mut s, ms(400)).len(), 8, "whatever the peer had to drop");
}

#[test]
fn nothing_waits_no_probe() {
    let mut s = sender();
    on_ack(&mut s, ms(0), 0, Some(0), true);
    s.blocked(ms(0), 0);
    assert_eq!(s.deadline(), None);
    s.blocked(ms(0), 1);
    assert_eq!(s.deadline(), Some(ms(1000)));
    s.blocked(ms(500), 1);
    assert_eq!(s.deadline(), Some(ms(1000)), "asking again does not push it back");
    s.blocked(ms(500), 0);
    assert_eq!(s.deadline(), None);
}
