//! Where the stack answered otherwise than the recorded server, and why.

use super::client::{Client, Remark};
use super::flow::State;
use super::server::Against;
use std::collections::BTreeSet;

/// What came of one client.
#[derive(Clone, PartialEq, Eq, Debug)]
pub struct Verdict {
    /// The handshake was finished.
    pub open: bool,
    /// Bytes that the client sent, and that the stack acknowledged.
    pub sent: u64,
    /// See there.
    pub accepted: u64,
    /// Bytes of the stack's answer, and of the recorded one.
    pub received: u64,
    /// See there.
    pub recorded: u64,
    /// Segments that the stack sent again, and that the recorded server did.
    pub again: u64,
    /// See there.
    pub recorded_again: u64,
    /// How far it got, and had got.
    pub state: State,
    /// See there.
    pub recorded_state: State,
    /// What is different.
    pub differences: Vec<Remark>,
    /// What is different, with a reason that lies in the recording.
    pub notes: Vec<Remark>,
    /// What the stack did not take.
    pub stops: Vec<Remark>,
}

/// Judges one client when it is done.
pub fn judge(client: &Client<'_>, against: Against) -> Verdict {
    let (sent, accepted) = client.text_sent_and_accepted();
    let flow = client.flow;
    let recorded = (client.plan.text_end - 1).max(0) as u64;
    let mut verdict = Verdict {
        open: client.is_open(),
        sent,
        accepted,
        received: client.text_received(),
        recorded,
        again: client.again + client.syn_acks.saturating_sub(syns(client)),
        // What fills a hole was most likely lost before it was recorded.
        recorded_again: flow.down.retransmissions + flow.down.out_of_order,
        state: state(client),
        recorded_state: flow.state(),
        differences: Vec::new(),
        notes: Vec::new(),
        stops: client.stops.clone(),
    };
    let mut found = Vec::new();
    if verdict.open {
        up(client, &verdict, &mut found);
        reset(client, &verdict, against, &mut found);
        if against == Against::Scripted {
            found.extend(client.waits.first().cloned());
        }
        if against != Against::Sink {
            text(client, &verdict, &mut found);
        }
        if against == Against::Scripted {
            end(client, &mut found);
            let untimed = verdict.again - client.timed.min(verdict.again);
            if untimed > verdict.recorded_again {
                found.push(again(client, &verdict, ""));
            } else if verdict.again > verdict.recorded_again {
                let late = late(client.timed_us);
                verdict.notes.push(again(client, &verdict, &late));
            }
        }
    } else {
        found.extend(client.waits.first().cloned());
        let why =
            if client.reset_by_stack.is_some() { "the stack refuses it" } else { "the handshake was not finished" };
        found.push(remark(client.last_packet, why));
    }
    verdict.differences = found;
    verdict
}

fn remark(packet: u64, what: impl Into<String>) -> Remark {
    Remark { packet, what: what.into() }
}

/// SYNs of the client's, each of which has an answer.
fn syns(client: &Client<'_>) -> u64 {
    client.flow.segments.iter().filter(|s| s.from_client && s.flags.syn() && !s.flags.ack()).count() as u64
}

fn state(client: &Client<'_>) -> State {
    match (client.is_reset(), client.is_open()) {
        (true, true) => State::Reset,
        (true, false) => State::Refused,
        (false, false) if client.have > 0 => State::HalfOpen,
        (false, false) => State::Asked,
        (false, true) => match (client.fin_sent, client.fin_seen) {
            (true, true) => State::Closed,
            (false, false) => State::Established,
            _ => State::HalfClosed,
        },
    }
}

/// The client's text.
fn up(client: &Client<'_>, verdict: &Verdict, found: &mut Vec<Remark>) {
    let flow = client.flow;
    let then = flow.up.text_before(flow.down.acked);
    if verdict.accepted < then {
        let (packet, why) = blame(client, client.accepted);
        let (accepted, sent) = (verdict.accepted, verdict.sent);
        let what = format!("the stack takes {accepted} bytes of {sent} where the recorded server took {then}{why}");
        found.push(remark(packet, what));
    }
    // Only where the recorded server still spoke after the client's last text is it known to have refused it.
    let text = flow.segments.iter().rposition(|s| s.from_client && s.len > 0);
    let answer = flow.segments.iter().rposition(|s| !s.from_client && s.flags.ack() && !s.flags.syn());
    let knows = match (text, answer) {
        (Some(text), Some(answer)) => flow.segments[answer].at_ns > flow.segments[text].at_ns + 500_000_000,
        _ => false,
    };
    if verdict.accepted > then && knows {
        let (packet, _) = blame(client, flow.down.acked);
        let accepted = verdict.accepted;
        found.push(remark(packet, format!("the stack takes {accepted} bytes, the recorded server took {then}")));
    }
}

/// The packet of the client's that holds `position`, and why it was not taken.
fn blame(client: &Client<'_>, position: i64) -> (u64, String) {
    let flow = client.flow;
    let isn = flow.up.isn.unwrap_or(0);
    let seq = isn.wrapping_add(position as u32);
    let holds = |s: &&super::segment::Segment| s.from_client && seq.wrapping_sub(s.seq) < s.sequence_len();
    let packets: BTreeSet<u64> = flow.segments.iter().filter(holds).map(|s| s.number).collect();
    let Some(&packet) = packets.first() else { return (client.last_packet, String::new()) };
    let on_syn = flow.segments.iter().any(|s| s.from_client && s.flags.syn() && s.len > 0);
    let stop = client.stops.iter().find(|stop| packets.contains(&stop.packet));
    let why = match stop {
        Some(stop) => format!(" ({})", stop.what),
        None if on_syn => " (data on a SYN is not taken: no TCP Fast Open)".to_owned(),
        None => String::new(),
    };
    (packet, why)
}

fn reset(client: &Client<'_>, verdict: &Verdict, against: Against, found: &mut Vec<Remark>) {
    match (client.reset_by_stack, client.flow.down.reset) {
        (Some(packet), None) => {
            let after = client.stops.iter().find(|stop| stop.packet == packet);
            let why = after.map(|stop| format!(" ({})", stop.what)).unwrap_or_default();
            found.push(remark(packet, format!("the stack resets the connection in answer to it{why}")));
        }
        // The client's own reset, or the end of its packets, may have come first here.
        (None, Some(packet))
            if against == Against::Scripted && verdict.recorded_state == State::Reset && !client.reset_sent =>
        {
            found.push(remark(packet, "the recorded server reset the connection here, the stack does not"));
        }
        _ => {}
    }
}

/// The server's text: what is there is the recorded one, and all of it.
fn text(client: &Client<'_>, verdict: &Verdict, found: &mut Vec<Remark>) {
    if let Some(at) = client.wrong_at {
        let what = format!("byte {} of the stack's text is another than the recorded server's", at - 1);
        found.push(remark(client.last_packet, what));
    }
    let (sent, then) = (verdict.received, verdict.recorded);
    if (sent < then && !client.is_reset()) || sent > then {
        let what = format!("the stack has sent {sent} bytes where the recorded server had sent {then}");
        found.push(remark(client.last_packet, what));
    }
}

/// The end of the server's stream.
fn end(client: &Client<'_>, found: &mut Vec<Remark>) {
    match (client.fin_seen, client.flow.down.fin_at) {
        (false, Some(_)) if !client.is_reset() => {
            found.push(remark(client.last_packet, "the stack has not ended its stream, the recorded server had"));
        }
        (true, None) => {
            found.push(remark(client.last_packet, "the stack ended its stream, the recorded server had not"))
        }
        _ => {}
    }
}

/// Why the stack's timers sent something again, where an acknowledgement was recorded `us` behind the packet before it.
fn late(us: u64) -> String {
    // On time, but it waits until there is as much as it acknowledges.
    if us < 1000 {
        return ": the trace acknowledges more at once than the stack sends without an acknowledgement, and its timers do not \
                wait for ever; --strict allows that"
            .to_owned();
    }
    let ms = us / 1000;
    format!(
        ": an acknowledgement was recorded only {ms} ms after the packet before it, which is longer than the stack's \
         timers wait; --strict allows that"
    )
}

fn again(client: &Client<'_>, verdict: &Verdict, why: &str) -> Remark {
    let (now, then) = (verdict.again, verdict.recorded_again);
    remark(client.last_packet, format!("the stack sent {now} segments again, the recorded server {then}{why}"))
}

#[cfg(test)]
mod tests {
    use super::late;

    #[test]
    fn an_acknowledgement_in_time_is_not_called_late() {
        assert!(late(0).contains("more at once than the stack sends") && !late(999).contains("0 ms"));
        assert!(late(250_900).contains("only 250 ms after"));
    }
}
