//! Marks, pacing, HyStart++, closed windows.

use super::*;
use crate::recovery::link::{Link, Reader, transfer};

fn marked(s: &mut Sender, now: Instant, ack: u64) {
    s.on_ack(now, &Ack { ack: ack * MSS, window: Some(1 << 20), pure: true, ece: true, ..Ack::default() });
}

/// RFC 3168 6.1.2: once for each window of data, and the next new segment says so.
#[test]
fn a_mark_costs_what_a_loss_costs_once_a_window() {
    let mut s = sacker();
    send(&mut s, ms(1), MUCH);
    marked(&mut s, ms(21), 2);
    assert_eq!(s.ssthresh(), 7000);
    assert!(s.take_cwr() && !s.take_cwr());
    assert!(!s.in_recovery(), "nothing was lost");
    for i in 3..=10 {
        send(&mut s, ms(21), MUCH);
        marked(&mut s, ms(21), i);
        assert_eq!(s.ssthresh(), 7000, "the same window");
    }
    assert!((6000..=7000).contains(&s.cwnd()), "{}", s.cwnd());
    let end = s.nxt() / MSS;
    send(&mut s, ms(41), MUCH);
    marked(&mut s, ms(41), end);
    marked(&mut s, ms(42), end + 1);
    assert!(s.ssthresh() < 7000 && s.take_cwr());
}

/// The acknowledgement of everything may be the one that reports the mark: of short answers it always is.
#[test]
fn a_mark_counts_though_nothing_is_left_in_flight() {
    let mut s = sacker();
    send(&mut s, ms(1), 10 * MSS);
    marked(&mut s, ms(21), 10);
    assert_eq!((s.ssthresh(), s.cwnd()), (7000, 7000));
    assert!(s.take_cwr() && !s.in_recovery());
    // The peer has not seen that we know.
    marked(&mut s, ms(22), 10);
    assert_eq!(s.ssthresh(), 7000);
}

/// A loss during such a reduction costs nothing more.
#[test]
fn a_loss_after_a_mark_reduces_once() {
    let mut s = sacker();
    send(&mut s, ms(1), 10 * MSS);
    marked(&mut s, ms(21), 1);
    let ssthresh = s.ssthresh();
    assert!(sacked(&mut s, ms(22), 1, &[(2, 6)]).fast_retransmit);
    assert_eq!(s.ssthresh(), ssthresh);
    assert_eq!(resend(&mut s, ms(22)), [(1000, 1000)]);
}

/// Over a link that marks from a quarter of its queue on, nothing is lost and the link stays busy.
#[test]
fn a_link_that_marks_loses_nothing() {
    let link = Link { mark_from: 60_000, ..Link::default() };
    let out = transfer(1460, 60_000_000, link, Reader::default(), 60);
    println!("{:.1} Mbit/s {out:?}", out.steady_mbit());
    assert!(out.marked > 0 && out.resent == 0, "{out:?}");
    assert!(out.steady_mbit() > 85.0);
}

/// RFC 9406: on a path with a deep queue slow start ends by the round trips, not by losing half of a window.
#[test]
fn slow_start_ends_before_a_deep_queue_overflows() {
    let link = Link { queue_bytes: 1_000_000, bits_per_second: 50_000_000, ..Link::default() };
    let out = transfer(1460, 4_000_000, link, Reader { stretch: 1, ..Reader::default() }, 60);
    println!("{out:?}");
    assert!(out.ssthresh != u32::MAX && out.resent == 0, "{out:?}");
}

/// A window that is let go at once after a pause goes out over a part of the round trip, in steps of a millisecond or
/// more, and half of it at once.
#[test]
fn a_burst_is_spread() {
    let mut s = sacker();
    for round in 0..5 {
        let (mut now, end) = (ms(1 + 20 * round), ms(21 + 20 * round));
        loop {
            send(&mut s, now, MUCH);
            match s.deadline() {
                Some(at) if at < end => {
                    now = at;
                    s.on_timeout(at);
                }
                _ => break,
            }
        }
        let to = s.nxt();
        ack(&mut s, end, to);
    }
    let cwnd = u64::from(s.cwnd());
    assert!(cwnd > 128 * MSS, "{cwnd}");
    let (mut now, mut sent, mut steps) = (ms(101), 0, vec![]);
    while sent < cwnd {
        let n = send(&mut s, now, MUCH);
        sent += n;
        steps.push((now, n / MSS));
        if sent < cwnd {
            let at = s.deadline().expect("pacing has a deadline");
            assert!(at >= now.plus_micros(1000), "{now:?} {at:?}");
            assert_eq!(s.on_timeout(at), Timeout::Resume);
            now = at;
        }
    }
    println!("{cwnd}: {steps:?}");
    assert!(steps[0].1 * MSS >= cwnd / 2 && steps[0].1 * MSS <= cwnd / 2 + cwnd / 8, "half at once: {steps:?}");
    assert!((ms(104)..=ms(112)).contains(&now), "the rest at twice the window per round trip: {steps:?}");
}

/// What fits into half of the window is never held, and small windows are not paced at all.
#[test]
fn what_is_short_goes_at_once() {
    let mut s = sacker();
    assert_eq!(send(&mut s, ms(1), MUCH), 10 * MSS);
    ack(&mut s, ms(21), 10 * MSS);
    assert_eq!(send(&mut s, ms(21), MUCH), 20 * MSS);
}

/// RFC 9293 3.8.6.1: a peer that answers probes is not given up, as far as the sender goes.
#[test]
fn a_closed_window_is_no_silence() {
    let mut s = sacker();
    send(&mut s, ms(1), 10 * MSS);
    on_ack(&mut s, ms(21), 10 * MSS, Some(0), true);
    assert_eq!(send(&mut s, ms(30), 5 * MSS), 0);
    for _ in 0..50 {
        let at = s.deadline().expect("probes");
        assert_eq!(s.on_timeout(at), Timeout::Probe);
        let (offset, len) = s.probe();
        if offset == s.nxt() {
            s.sent(at, offset, u64::from(len));
        } else {
            s.retransmitted(at, offset, u64::from(len));
        }
        on_ack(&mut s, at.plus_micros(20_000), 10 * MSS, Some(0), true);
    }
    on_ack(&mut s, ms(9_000_000), 10 * MSS, Some(1 << 20), true);
    assert!(!s.is_probing());
}

/// RFC 3168 6.1.2: whatever made the window smaller, the peer is told, and stops asking for it.
#[test]
fn a_reduction_for_a_loss_is_told_like_one_for_a_mark() {
    let mut s = sacker();
    send(&mut s, ms(1), 10 * MSS);
    assert!(sacked(&mut s, ms(21), 0, &[(1, 5)]).fast_retransmit);
    assert!(s.take_cwr());
    let mut s = sender();
    s.seed_rtt(ms(0), 20_000);
    send(&mut s, ms(1), 10 * MSS);
    assert_eq!(s.on_timeout(ms(221)), Timeout::Retransmit);
    assert!(s.take_cwr());
}
