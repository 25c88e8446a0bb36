//! Reading scripts.

mod packet;

use super::model::{Command, Event, Family, Header, Line, Linux, Script, When};
use packet::packet;
use std::ops::RangeInclusive;
use thiserror::Error;

/// A script that cannot be read: which line, and why.
#[derive(Clone, PartialEq, Eq, Debug, Error)]
#[error("{file}:{line}: {message}")]
pub struct ParseError {
    /// The file.
    pub file: String,
    /// The line's number, from 1.
    pub line: usize,
    /// What was wanted and what stands there.
    pub message: String,
}

/// What is wrong with a line.
type Parsed<T> = Result<T, String>;

impl Script {
    /// Reads a script; `file` is its name for messages.
    ///
    /// # Errors
    /// The first line that is none, with a sentence.
    pub fn parse(file: &str, text: &str) -> Result<Script, ParseError> {
        let fail = |number, message| ParseError { file: file.to_owned(), line: number, message };
        let mut rows = text.lines().enumerate().map(|(i, row)| (i + 1, row.trim())).peekable();
        let mut header = Header::empty();
        let mut first = true;
        while let Some((number, row)) = rows.next_if(|(_, row)| row.starts_with('#')) {
            let said = comment(row);
            if core::mem::take(&mut first) {
                header.clauses = said.to_owned();
            } else {
                header.take(said).map_err(|message| fail(number, message))?;
            }
        }
        if !header.clauses.starts_with("RFC ") {
            return Err(fail(1, "a script begins with a comment that names its clauses: `# RFC 9293 3.5`".to_owned()));
        }
        let mut lines: Vec<Line> = Vec::new();
        let mut comments = Vec::new();
        for (number, row) in rows {
            if row.is_empty() {
                continue;
            }
            if row.starts_with('#') {
                comments.push(comment(row).to_owned());
                continue;
            }
            let (when, event) = line(row).map_err(|message| fail(number, message))?;
            lines.push(Line { number, comments: std::mem::take(&mut comments), when, event });
        }
        if lines.is_empty() {
            return Err(fail(text.lines().count().max(1), "a script without a single line shows nothing".to_owned()));
        }
        Ok(Script { file: file.to_owned(), header, lines })
    }
}

impl Header {
    /// A header with these clauses and nothing else.
    pub fn new(clauses: &str) -> Header {
        Header { clauses: clauses.to_owned(), ..Header::empty() }
    }

    fn empty() -> Header {
        Header {
            clauses: String::new(),
            why: Vec::new(),
            families: vec![Family::V4, Family::V6],
            linux: Linux::Same,
            pending: None,
            parked: None,
            sysctls: Vec::new(),
            port_closed: false,
            syn_backlog: None,
            keep_alive_us: None,
            user_timeout_us: None,
        }
    }

    fn take(&mut self, said: &str) -> Parsed<()> {
        let Some((key, value)) = said.split_once(':') else {
            self.why.push(said.to_owned());
            return Ok(());
        };
        let value = value.trim();
        match key {
            "ip" => self.families = value.split_whitespace().map(family).collect::<Parsed<_>>()?,
            "linux" => self.linux = linux(value)?,
            "pending" if !value.is_empty() => self.pending = Some(value.to_owned()),
            "pending" => return Err("`# pending:` says what the script waits for".to_owned()),
            "parked" => match linux(value) {
                Ok(Linux::Differs(reason)) => self.parked = Some(reason),
                _ => return Err("`# parked:` wants `differs — REASON`".to_owned()),
            },
            "sysctl" => {
                let (name, value) = value.split_once('=').ok_or("`# sysctl:` wants NAME=VALUE")?;
                self.sysctls.push((name.trim().to_owned(), value.trim().to_owned()));
            }
            "port" if value == "closed" => self.port_closed = true,
            "port" => return Err(format!("`# port:` knows `closed`, not `{value}`")),
            "keep-alive" => self.keep_alive_us = Some(micros(value)?),
            "user-timeout" => self.user_timeout_us = Some(micros(value)?),
            "syn-backlog" => self.syn_backlog = Some(number(value)?),
            _ => self.why.push(said.to_owned()),
        }
        Ok(())
    }
}

fn family(word: &str) -> Parsed<Family> {
    match word {
        "v4" => Ok(Family::V4),
        "v6" => Ok(Family::V6),
        _ => Err(format!("`# ip:` wants v4, v6 or both, not `{word}`")),
    }
}

fn linux(value: &str) -> Parsed<Linux> {
    let (what, reason) =
        value.split_once('—').or_else(|| value.split_once(" - ")).map_or((value, ""), |(w, r)| (w.trim(), r.trim()));
    match what {
        _ if reason.is_empty() => Err("`# linux:` wants `differs — REASON` or `not run — REASON`".to_owned()),
        "differs" => Ok(Linux::Differs(reason.to_owned())),
        "not run" => Ok(Linux::NotRun(reason.to_owned())),
        _ => Err(format!("`# linux:` wants `differs` or `not run`, not `{what}`")),
    }
}

fn comment(row: &str) -> &str {
    let said = row.trim_start_matches('#');
    said.strip_prefix(' ').unwrap_or(said).trim_end()
}

fn line(row: &str) -> Parsed<(When, Event)> {
    let (when, rest) =
        row.split_once(char::is_whitespace).ok_or("a time and an event are wanted: `+.1 < . 1:1(0) ack 1`")?;
    let when = parse_when(when)?;
    let rest = rest.trim();
    let event = match rest.split_at_checked(1) {
        Some(("<", what)) => Event::In(packet(what.trim(), true)?),
        Some((">", what)) => Event::Out(packet(what.trim(), false)?),
        _ => command(rest)?,
    };
    let exact = match &when {
        When::After(range) | When::At(range) => range.start() == range.end(),
        When::Any => false,
    };
    if !exact && !matches!(event, Event::Out(_)) {
        return Err("only what the server sends (`>`) may come at `*` or within a range of time".to_owned());
    }
    Ok((when, event))
}

fn parse_when(word: &str) -> Parsed<When> {
    if word == "*" {
        return Ok(When::Any);
    }
    let (from, to) = word.split_once('~').unwrap_or((word, word));
    let range = |from: &str, to: &str| -> Parsed<RangeInclusive<u64>> {
        let (from, to) = (micros(from)?, micros(to)?);
        if from > to {
            return Err(format!("`{word}` ends before it begins"));
        }
        Ok(from..=to)
    };
    match (from.strip_prefix('+'), to.strip_prefix('+')) {
        (Some(from), Some(to)) => range(from, to).map(When::After),
        (None, None) => range(from, to).map(When::At),
        _ => Err(format!("`{word}`: both ends of a range want a `+`, or none")),
    }
}

fn micros(word: &str) -> Parsed<u64> {
    let wrong = || format!("`{word}` is no time: seconds are wanted, as in `1.25` or `.1`");
    let (whole, part) = word.split_once('.').unwrap_or((word, ""));
    if (whole.is_empty() && part.is_empty()) || part.len() > 6 {
        return Err(wrong());
    }
    let whole: u64 = if whole.is_empty() { 0 } else { whole.parse().map_err(|_| wrong())? };
    let part: u64 = format!("{part:0<6}").parse().map_err(|_| wrong())?;
    whole.checked_mul(1_000_000).and_then(|whole| whole.checked_add(part)).ok_or_else(wrong)
}

fn command(text: &str) -> Parsed<Event> {
    let words: Vec<&str> = text.split_whitespace().collect();
    let command = match words[..] {
        ["silence"] => return Ok(Event::Silence),
        ["anything"] => return Ok(Event::Anything),
        ["accept"] => Command::Accept,
        ["read", n] => Command::Read(number(n)?),
        ["write", n] => Command::Write(number(n)?),
        ["shutdown"] => Command::Shutdown,
        ["close"] => Command::Close,
        ["abort"] => Command::Abort,
        ["expect", "eof"] => Command::ExpectEof,
        ["expect", "reset"] => Command::ExpectReset,
        ["expect", "timeout"] => Command::ExpectTimeout,
        ["expect", "open"] => Command::ExpectOpen,
        _ => {
            return Err(format!(
                "`{text}` is neither a packet (`<`, `>`) nor a command: accept, read N, write N, shutdown, close, abort, \
                 expect eof|reset|timeout|open, silence, anything"
            ));
        }
    };
    Ok(Event::App(command))
}

fn number<N: std::str::FromStr>(word: &str) -> Parsed<N> {
    word.parse().map_err(|_| format!("`{word}` is no number, or too large a one"))
}
