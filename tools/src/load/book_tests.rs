use super::super::plan::{Poll, Question, Target};
use super::*;

fn plan(connections: usize, pipeline: usize, pace: Pace) -> Plan {
    let question = Question::Echo { size: 64 };
    Plan {
        target: Target { address: "198.18.0.2:7".parse().unwrap(), question },
        connections,
        pipeline,
        pace,
        fresh: false,
        idle: 0,
        wake: false,
        slow_bits_per_s: None,
        duration: Duration::from_millis(100),
        warm_up: Duration::from_millis(10),
        requests: None,
        handshakes: 16,
        timeout: Duration::from_millis(50),
        open_within: Duration::from_secs(1),
        window: None,
        poll: Poll::Sleep,
    }
}

fn book(plan: Plan) -> Book {
    let together = Arc::new(Together { threads: 1, ..Together::default() });
    Book::new(plan, Arc::default(), together, Instant::ZERO).unwrap()
}

fn at(ms: u64) -> Instant {
    Instant::from_millis(ms)
}

/// A server that stalls for 50 ms of 100 answers what was due then late, though what was sent was answered at once.
#[test]
fn an_open_loop_does_not_omit_what_a_stall_holds_up() {
    let mut book = book(plan(1, 1, Pace::Open { per_second: 1000.0 }));
    book.free(0);
    book.tick(at(0), true, 1, 0);
    for ms in 0..200 {
        book.tick(at(ms), true, 1, 0);
        let stalled = (30..80).contains(&ms);
        if book.asked(0) > 0 && !stalled {
            assert!(!book.answered(at(ms), 0));
        }
        // What is due finds the connection free, or waits.
        while book.next(at(ms)).is_some() {
            if !stalled {
                book.answered(at(ms), 0);
            }
        }
        if book.stage() == Stage::Over {
            break;
        }
    }
    let tally = &book.tally;
    assert_eq!((tally.unsent, tally.errors_all()), (0, 0));
    assert_eq!(tally.corrected_us.len(), 100, "every request that was due counts");
    assert!(tally.latency_us.value_at_quantile(0.9) < 1_100, "sent late, answered fast");
    let corrected = tally.corrected_us.value_at_quantile(0.9);
    assert!((35_000..50_000).contains(&corrected), "{corrected} us");
}

#[test]
fn what_an_open_loop_could_not_send_counts_as_waiting() {
    let mut book = book(plan(1, 1, Pace::Open { per_second: 1000.0 }));
    book.free(0);
    book.tick(at(0), true, 1, 0);
    book.tick(at(10), true, 1, 0);
    assert_eq!(book.next(at(10)), Some(0), "the first of the warm-up");
    assert_eq!(book.next(at(60)), None, "the connection is busy");
    book.tick(at(110), true, 1, 0);
    assert_eq!(book.stage(), Stage::Drain);
    assert_eq!(book.tally.unsent, 100);
    assert_eq!(book.tally.corrected_us.len(), 100);
    book.tick(at(160), true, 1, 0);
    assert_eq!((book.stage(), book.tally.errors[Trouble::Timeout as usize]), (Stage::Over, 1));
}

#[test]
fn a_closed_loop_keeps_its_pipeline_full() {
    let mut book = book(plan(2, 3, Pace::Closed));
    assert_eq!(book.next(at(0)), None, "nothing is open");
    (0..2).for_each(|id| book.free(id));
    book.tick(at(0), false, 1, 0);
    assert_eq!(book.next(at(0)), None, "not all are open");
    book.tick(at(1), true, 2, 0);
    let ids: Vec<u32> = std::iter::from_fn(|| book.next(at(1))).collect();
    assert_eq!(ids, [0, 1, 0, 1, 0, 1]);
    book.tick(at(11), true, 2, 0);
    assert!(book.answered(at(13), 1) && book.answered(at(14), 1));
    assert_eq!((book.asked(1), book.tally.answered), (3, 2));
    assert!((12_900..13_100).contains(&book.tally.latency_us.max()));
    book.tick(at(120), true, 2, 0);
    assert!(!book.answered(at(121), 0), "the measurement is over");
    assert_eq!(book.tally.answered, 2);
}

#[test]
fn a_number_of_requests_is_kept_to() {
    let mut book = book(Plan { requests: Some(5), warm_up: Duration::ZERO, ..plan(2, 1, Pace::Closed) });
    (0..2).for_each(|id| book.free(id));
    book.tick(at(0), true, 2, 0);
    book.tick(at(0), true, 2, 0);
    let mut made = 0;
    for ms in 1..20 {
        made += std::iter::from_fn(|| book.next(at(ms))).count();
        for id in 0..2 {
            if book.asked(id) > 0 {
                made += usize::from(book.answered(at(ms), id));
            }
        }
        book.tick(at(ms), true, 2, 0);
    }
    assert_eq!((made, book.tally.answered, book.stage()), (5, 5, Stage::Over));
}

#[test]
fn idle_connections_ask_once_at_the_end() {
    let mut book = book(Plan { idle: 3, wake: true, ..plan(1, 1, Pace::Closed) });
    (0..4).for_each(|id| book.free(id));
    for ms in [0, 10, 110] {
        book.tick(at(ms), true, 4, 3);
        assert!(book.next(at(ms)).is_none_or(|id| id == 0));
    }
    book.answered(at(111), 0);
    book.tick(at(111), true, 4, 3);
    assert_eq!((book.stage(), book.tally.idle_held), (Stage::Wake, 3));
    let ids: Vec<u32> = std::iter::from_fn(|| book.next(at(111))).collect();
    assert_eq!(ids, [1, 2, 3]);
    book.answered(at(112), 1);
    book.answered(at(112), 2);
    book.fail(at(113), 3, Trouble::Reset, String::new);
    book.tick(at(113), true, 3, 2);
    assert_eq!((book.stage(), book.tally.woken), (Stage::Over, 2));
}

/// Whoever has waited as long as an answer is waited for has gone: those that are due now do not wait behind the others.
#[test]
fn an_open_loop_gives_up_requests_that_are_too_old() {
    let mut book = book(plan(1, 1, Pace::Open { per_second: 1000.0 }));
    book.free(0);
    for ms in 0..=10 {
        book.tick(at(ms), true, 1, 0);
        while book.next(at(ms)).is_some() {
            book.answered(at(ms), 0);
        }
    }
    assert_eq!((book.stage(), book.tally.unsent), (Stage::Measure, 0));
    // The one connection is busy for 80 ms, and the client waits 50 at most.
    book.tick(at(11), true, 1, 0);
    assert_eq!(book.next(at(11)), Some(0));
    assert_eq!(book.next(at(91)), None, "no connection is free");
    book.answered(at(91), 0);
    assert_eq!(book.next(at(91)), Some(0));
    let given_up = book.tally.unsent;
    assert!((25..=31).contains(&given_up), "due from 12 to 40 ms, not those of the last 50: {given_up}");
    assert!(book.tally.corrected_us.max() >= 79_000);
}
