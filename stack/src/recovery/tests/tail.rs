//! Probes for the tail (RFC 8985 section 7).

use super::*;

/// 7.3: new data is the better probe.
#[test]
fn a_new_segment_goes_if_there_is_one() {
    let mut s = sacker();
    assert_eq!(send(&mut s, ms(1), 11 * MSS), 10 * MSS, "one waits for the window");
    let at = s.deadline().expect("the probe timer runs");
    assert_eq!(at, ms(43), "7.2: two round trips and 2 ms");
    assert_eq!(s.on_timeout(at), Timeout::TailLoss);
    assert_eq!(s.next_retransmission(), None);
    assert_eq!(send(&mut s, at, MSS), MSS, "beyond the window");
    assert_eq!(s.deadline(), Some(ms(43 + 220)), "then the retransmission timer");
    assert!(sacked(&mut s, ms(63), 0, &[(10, 11)]).fast_retransmit, "what went out so long before it is lost");
}

/// 7.3, 7.4.2: the last segment goes again; what it draws shows what is missing.
#[test]
fn else_the_last_segment_goes_again() {
    let mut s = sacker();
    send(&mut s, ms(1), 5 * MSS - 300);
    let at = s.deadline().expect("the probe timer runs");
    assert_eq!(s.on_timeout(at), Timeout::TailLoss);
    assert_eq!(resend(&mut s, at), [(4000, 700)]);
    assert_eq!(resend(&mut s, at), []);
    let news = Ack { ack: 2000, window: Some(1 << 20), pure: true, sack: &[(4000, 4700)], ..Ack::default() };
    assert!(s.on_ack(ms(63), &news).fast_retransmit);
    assert_eq!(resend(&mut s, ms(63)), [(2000, 1000), (3000, 1000)]);
}

/// 7.4.1: a loss that the probe itself repaired costs what a loss costs.
#[test]
fn a_loss_that_the_probe_repaired_is_congestion() {
    for (answers, reduced) in [
        (vec![(5, vec![]), (6, vec![])], true),
        (vec![(5, vec![]), (5, vec![(4, 5)]), (6, vec![])], false),
        (vec![(5, vec![(4, 5)]), (6, vec![])], false),
    ] {
        let mut s = sacker();
        send(&mut s, ms(1), 5 * MSS);
        let at = s.deadline().expect("the probe timer runs");
        assert_eq!(s.on_timeout(at), Timeout::TailLoss);
        resend(&mut s, at);
        for (ack, blocks) in &answers {
            if *ack == 6 {
                send(&mut s, ms(63), MSS);
            }
            sacked(&mut s, ms(63), *ack, blocks);
        }
        assert_eq!(s.ssthresh() != u32::MAX, reduced, "{answers:?}");
        assert!(!s.in_recovery());
    }
}

/// 7.2: a lone segment waits for the peer's delayed acknowledgement too; and one probe is enough.
#[test]
fn then_comes_the_retransmission_timer() {
    let mut s = sacker();
    send(&mut s, ms(1), 10);
    assert_eq!(s.deadline(), Some(ms(221)), "never later than the retransmission timer");
    assert_eq!(s.on_timeout(ms(221)), Timeout::TailLoss);
    resend(&mut s, ms(221));
    assert_eq!(s.deadline(), Some(ms(441)));
    assert_eq!(s.on_timeout(ms(441)), Timeout::Retransmit);
    resend(&mut s, ms(441));
    assert_eq!(s.on_timeout(ms(881)), Timeout::Retransmit);
}

/// 7.2: a peer that cannot report gets none.
#[test]
fn without_sack_there_is_none() {
    let mut s = sender();
    s.seed_rtt(ms(0), 20_000);
    send(&mut s, ms(1), 5 * MSS);
    assert_eq!(s.on_timeout(ms(221)), Timeout::Retransmit);
}
