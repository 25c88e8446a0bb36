//! The scoreboard itself.

use super::*;
use crate::recovery::scoreboard::{RUNS_MAX, Scoreboard};

/// Sends `segments` of 1000 bytes, each at its own instant.
fn spread(segments: u64) -> Scoreboard {
    let mut board = Scoreboard::new();
    for i in 0..segments {
        board.push(ms(i), i * MSS, 1000, 1000);
    }
    board.settle();
    board
}

#[test]
fn a_burst_is_one_run() {
    let mut board = Scoreboard::new();
    for i in 0..1000 {
        board.push(ms(5), i * MSS, 1000, 1000);
    }
    assert_eq!(board.runs(), 1);
    board.push(ms(5), 1_000_000, 10, 1000);
    board.push(ms(5), 1_000_010, 1000, 1000);
    assert_eq!(board.runs(), 2, "a short segment ends it");
    board.audit(0, 1_001_010);
}

#[test]
fn reports_split_and_join() {
    let mut board = spread(1);
    board.push(ms(7), MSS, 99_000, 1000);
    board.settle();
    let mut seen = vec![];
    for (left, right) in [(10, 20), (30, 40), (20, 30), (10, 40), (0, 1)] {
        board.sack(left * MSS, right * MSS, |run| seen.push((run.start / MSS, run.end() / MSS)));
        board.audit(0, 100 * MSS);
    }
    assert_eq!(seen, [(10, 20), (30, 40), (20, 30), (0, 1)], "each byte once");
    assert_eq!((board.runs(), board.sacked()), (4, 31_000));
    board.ack(15 * MSS, |_| {});
    board.audit(15 * MSS, 100 * MSS);
    assert_eq!(board.sacked(), 25_000);
}

/// What an ACK ends inside of is a segment still: blocks begin and end where segments did, counted from where they were cut.
#[test]
fn an_ack_inside_a_segment_moves_no_border() {
    // Once as the newest run, once in the queue; the last segment is short.
    for (acks, queued) in
        [(&[700][..], false), (&[700], true), (&[300, 700], true), (&[999, 1001, 1700, 700 + 1000], true)]
    {
        let mut board = Scoreboard::new();
        board.push(ms(7), 0, 9_500, 1000);
        if queued {
            board.settle();
        }
        for &ack in acks {
            if queued {
                board.ack(ack, |_| {});
            } else {
                board.ack_plain(ack);
            }
        }
        board.settle();
        let una = acks[acks.len() - 1];
        let first = una.next_multiple_of(1000);
        let report = |board: &mut Scoreboard, left, right| {
            let mut seen = vec![];
            board.sack(left, right, |run| seen.push((run.start, run.end())));
            board.audit(una, 9_500);
            seen
        };
        assert_eq!(report(&mut board, first, first + 1000), [(first, first + 1000)], "{acks:?}, {queued}");
        assert_eq!(report(&mut board, first + 2_300, first + 3_700), []);
        assert_eq!(report(&mut board, 8_000, 9_500), [(8_000, 9_500)]);
        assert_eq!(board.last_missing(), Some((7_000, 1000)), "{acks:?}, {queued}");
        // The rest of a segment is one.
        assert_eq!(report(&mut board, una, first), [(una, first)]);
        board.ack(7_300, |_| {});
        assert_eq!(board.last_missing(), Some((7_300, 700)));
        // What goes out again begins a segment of its own.
        board.lose_where(|_| true);
        board.resend(ms(9), 7_300, 700, 400);
        assert_eq!(board.last_missing(), Some((7_700, 300)));
        board.sack(7_700, 8_000, |_| {});
        board.audit(7_300, 9_500);
        assert_eq!(board.last_missing(), Some((7_300, 400)));
        board.ack(9_500, |_| {});
        board.push(ms(10), 9_500, 1_200, 1000);
        assert_eq!(board.last_missing(), Some((10_500, 200)), "nothing is left of it");
    }
}

/// A hostile peer reports single bytes, or every second segment.
#[test]
fn a_peer_cannot_split_finer_than_segments() {
    let mut board = spread(1);
    board.push(ms(7), MSS, 999_000, 1000);
    board.settle();
    for at in (1500..1_000_000).step_by(997) {
        board.sack(at, at + 996, |_| panic!("no whole segment"));
    }
    assert_eq!(board.runs(), 2);
    for i in (1..1000).step_by(2) {
        board.sack(i * MSS - 1, (i + 1) * MSS + 1, |_| {});
    }
    board.audit(0, 1000 * MSS);
    assert_eq!(board.runs(), 1000);
}

#[test]
fn nothing_makes_it_grow_without_bound() {
    let mut board = Scoreboard::new();
    for i in 0..3 * RUNS_MAX as u64 {
        board.push(ms(i), i, 1, 1000);
    }
    assert!(board.runs() <= RUNS_MAX + 1);
    board.settle();
    board.audit(0, 3 * RUNS_MAX as u64);
    for i in 0..RUNS_MAX as u64 {
        board.sack(2 * i, 2 * i + 1, |_| {});
    }
    assert!(board.runs() <= RUNS_MAX + 2);
    board.audit(0, 3 * RUNS_MAX as u64);
}

/// Whatever a peer reports, no ACK costs more than its share: a storm over thousands of runs ends at once.
#[test]
fn a_storm_of_reports_is_survived() {
    let mut s = Sender::new(&Setup { mss: 1000, window: 1 << 30, sack: true, algorithm: Algorithm::Cubic });
    s.seed_rtt(ms(0), 20_000);
    let mut now = ms(1);
    while s.cwnd() < 4_000_000 {
        send(&mut s, now, MUCH);
        now = now.plus_micros(20_000);
        let to = s.nxt();
        on_ack(&mut s, now, to, Some(1 << 30), true);
    }
    for _ in 0..4000 {
        now = now.plus_micros(10);
        let (offset, len) = (s.nxt(), MSS);
        s.sent(now, offset, len);
    }
    let (una, end) = (s.una(), s.nxt());
    for i in 0..200_000u64 {
        now = now.plus_micros(1);
        let at = |k: u64| una + (i * 7919 + k * 104_729) % 3990 * MSS;
        let blocks = [(at(1), at(1) + MSS), (at(2), at(2) + 3 * MSS), (at(3), end), (una + MSS, end - MSS)];
        s.on_ack(
            now,
            &Ack { ack: una, window: Some(1 << 30), pure: true, sack: &blocks[..(i % 5) as usize], ..Ack::default() },
        );
        if i % 100 == 0 {
            resend(&mut s, now);
        }
    }
    s.board().audit(una, s.nxt());
}

/// Segments became smaller, and what is sent again ends inside of an old one: what was sent behind that is reported as it was
/// sent, and does not go again.
#[test]
fn smaller_segments_in_a_hole_move_no_border_behind_it() {
    for acked in [0, 300] {
        let mut s = Sender::new(&Setup { mss: 1000, window: 1 << 20, sack: true, algorithm: Algorithm::Cubic });
        assert_eq!(send(&mut s, ms(0), 5 * MSS), 5 * MSS);
        on_ack(&mut s, ms(20), acked, None, true);
        let at = ms(300);
        s.path_shrank(at, 300);
        let mut end = acked;
        while end + 300 < MSS {
            assert_eq!(s.next_retransmission().unwrap().0, end);
            s.retransmitted(at, end, 300);
            end += 300;
        }
        let blocks = [(MSS, 5 * MSS)];
        s.on_ack(at, &Ack { ack: acked, window: Some(1 << 20), pure: true, sack: &blocks, ..Ack::default() });
        s.board().audit(s.una(), s.nxt());
        assert_eq!(s.board().sacked(), 4000, "{acked}");
        assert_eq!(resend(&mut s, at), [(end, (MSS - end) as u32)]);
    }
}
