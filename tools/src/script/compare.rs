//! Whether a segment is the one that a script describes.

use super::model::{Tcp, TcpOption};
use khamsin_stack::wire::Flags;

/// In what `got` is not what `wanted` describes; empty: in nothing.
pub(super) fn differences(wanted: &Tcp, got: &Tcp) -> Vec<String> {
    let mut wrong = Vec::new();
    let mut check = |same: bool, what: String| {
        if !same {
            wrong.push(what);
        }
    };
    // PSH says nothing that a receiver may rely on (RFC 9293 3.9.1.2); a script that has it wants it.
    let push = if wanted.flags.contains(Flags::PSH) { 0 } else { Flags::PSH.0 };
    let ignored = push | if wanted.any_ack { Flags::ACK.0 } else { 0 };
    check(wanted.flags.0 & !ignored == got.flags.0 & !ignored, "other flags".to_owned());
    check((wanted.seq, wanted.len) == (got.seq, got.len), "other sequence numbers".to_owned());
    check(wanted.any_ack || wanted.ack == got.ack, "another acknowledgement".to_owned());
    let window = got.window.as_ref().map_or(0, |w| *w.start());
    check(wanted.window.as_ref().is_none_or(|w| w.contains(&window)), format!("a window of {window}"));
    check(wanted.urgent == got.urgent, "another urgent pointer".to_owned());
    let mut rest: Vec<&TcpOption> = got.options.iter().collect();
    for option in wanted.options.iter().filter(|o| !matches!(o, TcpOption::Nop | TcpOption::End)) {
        match rest.iter().position(|other| fits(option, other)) {
            Some(at) => drop(rest.remove(at)),
            None => check(false, format!("no option `{option}`")),
        }
    }
    if !wanted.more_options {
        rest.iter().for_each(|option| check(false, format!("an option `{option}`")));
    }
    wrong
}

/// Milliseconds by which the server's clock in timestamps may differ from the script's.
const STAMP_SLACK_MS: u32 = 60;

fn fits(wanted: &TcpOption, got: &TcpOption) -> bool {
    match (wanted, got) {
        (TcpOption::Mss(wanted), TcpOption::Mss(got)) => wanted.is_none() || wanted == got,
        (TcpOption::WindowScale(wanted), TcpOption::WindowScale(got)) => wanted.is_none() || wanted == got,
        (TcpOption::Timestamps { val, ecr }, TcpOption::Timestamps { val: their_val, ecr: their_ecr }) => {
            let close = val.zip(*their_val).is_none_or(|(a, b)| a.abs_diff(b) <= STAMP_SLACK_MS);
            close && (ecr.is_none() || ecr == their_ecr)
        }
        _ => wanted == got,
    }
}
