//! What a replay came to, as a table and sentences.

use super::judge::{Verdict, judge};
use super::server::Against;
use super::world::Outcome;
use std::fmt::Write;

/// Lines of remarks for one client.
const REMARKS_MAX: usize = 8;

/// The report, and whether nothing is different.
pub fn report(outcome: &Outcome<'_>, against: Against) -> (String, bool) {
    let verdicts: Vec<(usize, Verdict)> =
        outcome.clients.iter().map(|(client, _)| (client.flow.number, judge(client, against))).collect();
    let mut text = format!(
        "{:>4}  {:<9}  {:>21}  {:>21}  {:>11}  {:<23}  {}\n",
        "flow", "handshake", "accepted of sent", "answered of recorded", "again/then", "end/then", "differences"
    );
    for (number, verdict) in &verdicts {
        line(&mut text, *number, verdict);
    }
    for (number, why) in &outcome.left_out {
        let _ = writeln!(text, "{number:>4}  not replayed: {why}");
    }
    let same = verdicts.iter().filter(|(_, verdict)| verdict.differences.is_empty()).count();
    for (number, verdict) in &verdicts {
        remarks(&mut text, *number, verdict);
    }
    let counters = &outcome.counters;
    let own_acks: u64 = outcome.clients.iter().map(|(client, _)| client.own_acks).sum();
    let _ = write!(
        text,
        "{} replayed in {:.3} s, {same} {}; {} frames in, {} out, {} segments sent again; {own_acks} \
         acknowledgements that no trace has",
        verdicts.len(),
        outcome.virtual_us as f64 / 1e6,
        compared(against),
        counters.rx_frames,
        counters.tx_frames,
        counters.retransmitted
    );
    (text, same == verdicts.len())
}

/// What is the same where nothing is different.
fn compared(against: Against) -> &'static str {
    match against {
        Against::Scripted => "as recorded",
        Against::Echo | Against::Http => {
            "as recorded in the text of both sides (when it came and how it ended is not compared)"
        }
        Against::Sink => "as recorded in what was accepted (the answers are not compared)",
    }
}

fn line(text: &mut String, number: usize, verdict: &Verdict) {
    let _ = writeln!(
        text,
        "{number:>4}  {:<9}  {:>10}/{:<10}  {:>10}/{:<10}  {:>5}/{:<5}  {:>11}/{:<11}  {}",
        if verdict.open { "yes" } else { "no" },
        verdict.accepted,
        verdict.sent,
        verdict.received,
        verdict.recorded,
        verdict.again,
        verdict.recorded_again,
        verdict.state,
        verdict.recorded_state,
        if verdict.differences.is_empty() { "none".to_owned() } else { verdict.differences.len().to_string() },
    );
}

fn remarks(text: &mut String, number: usize, verdict: &Verdict) {
    for difference in verdict.differences.iter().chain(&verdict.notes).take(REMARKS_MAX) {
        let _ = writeln!(text, "flow {number}, packet {}: {}", difference.packet, difference.what);
    }
    for stop in verdict.stops.iter().take(REMARKS_MAX) {
        let _ = writeln!(text, "flow {number}, packet {}: not taken, or not all of it ({})", stop.packet, stop.what);
    }
    let untold = verdict.stops.len().saturating_sub(REMARKS_MAX);
    if untold > 0 {
        let _ = writeln!(text, "flow {number}: and {untold} more packets that were not taken");
    }
}
