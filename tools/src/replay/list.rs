//! `--list`: the flows of a trace as a table.

use super::flow::{Flow, Opened};
use super::trace::Trace;
use std::fmt::Write;

/// The flows, a line each, and what else there was.
pub fn list(trace: &Trace) -> String {
    let ends: Vec<(String, String)> = trace.flows.iter().map(ends).collect();
    let client = ends.iter().map(|(client, _)| client.len()).max().unwrap_or(0).max(6);
    let server = ends.iter().map(|(_, server)| server.len()).max().unwrap_or(0).max(6);
    let mut text = format!(
        "{:>4}  {:<client$}  {:<server$}  {:<11}  {:>9}  {:>10} {:>10}  {:>8} {:>4}  {:>4}\n",
        "flow", "client", "server", "state", "seconds", "up bytes", "down bytes", "again up", "down", "gaps"
    );
    for (flow, (from, to)) in trace.flows.iter().zip(&ends) {
        let _ = writeln!(
            text,
            "{:>4}  {from:<client$}  {to:<server$}  {:<11}  {:>9.3}  {:>10} {:>10}  {:>8} {:>4}  {:>4}{}",
            flow.number,
            flow.state(),
            flow.duration_ns() as f64 / 1e9,
            flow.up.bytes(),
            flow.down.bytes(),
            flow.up.retransmissions,
            flow.down.retransmissions,
            flow.up.gaps() + flow.down.gaps(),
            remarks(flow),
        );
    }
    let _ = write!(
        text,
        "{} packets, {} flows, {} with a handshake; {} packets are no TCP",
        trace.packets,
        trace.flows.len(),
        trace.flows.iter().filter(|flow| flow.replayable().is_ok()).count(),
        trace.others
    );
    text
}

fn ends(flow: &Flow) -> (String, String) {
    let mark = if flow.opened == Opened::Before { "?" } else { "" };
    (format!("{}{mark}", flow.client), flow.server.to_string())
}

/// What is odd about a flow.
fn remarks(flow: &Flow) -> String {
    let mut words = Vec::new();
    match flow.opened {
        Opened::Syn => {}
        Opened::Answer => words.push("its SYN is missing".to_owned()),
        Opened::Before => words.push("began before the trace".to_owned()),
    }
    if flow.fragments > 0 {
        words.push(format!("{} IP fragments are put together", flow.fragments));
    }
    if flow.fragments_lost > 0 {
        words.push(format!("{} IP fragments of packets that are not whole", flow.fragments_lost));
    }
    for (half, whose) in [(&flow.up, "client"), (&flow.down, "server")] {
        if half.offloaded() {
            words.push(format!("the {whose}'s checksums were left to its device"));
        } else if half.bad_checksums != [0, 0] {
            words.push(format!("{} wrong checksums of the {whose}'s", half.bad_checksums.iter().sum::<u64>()));
        }
        if half.cut > 0 {
            let options = match half.headers_cut {
                0 => String::new(),
                headers => format!(", {headers} of them in their TCP options"),
            };
            words.push(format!("{} packets of the {whose}'s are cut short{options}", half.cut));
        }
        if half.wild > 0 {
            words.push(format!("{} segments of the {whose}'s lie far outside its stream", half.wild));
        }
        if let Some(number) = half.reset {
            words.push(format!("the {whose} reset it in packet {number}"));
        }
    }
    if words.is_empty() { String::new() } else { format!("  {}", words.join(", ")) }
}
