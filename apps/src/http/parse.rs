//! Request heads over httparse: what RFC 9112 wants of them, and how the message goes on.

use super::{HEAD_MAX, HEADERS_MAX, LINE_MAX};
use core::mem::MaybeUninit;
use httparse::Header;
use memchr::{memchr, memrchr};

/// The methods of RFC 9110 and RFC 5789.
#[derive(Clone, Copy, PartialEq, Eq, Debug, Hash)]
#[allow(missing_docs)]
pub enum Method {
    Get,
    Head,
    Post,
    Put,
    Delete,
    Options,
    Trace,
    Connect,
    Patch,
}

impl Method {
    fn parse(token: &str) -> Option<Method> {
        Some(match token {
            "GET" => Method::Get,
            "HEAD" => Method::Head,
            "POST" => Method::Post,
            "PUT" => Method::Put,
            "DELETE" => Method::Delete,
            "OPTIONS" => Method::Options,
            "TRACE" => Method::Trace,
            "CONNECT" => Method::Connect,
            "PATCH" => Method::Patch,
            _ => return None,
        })
    }
}

/// How the body of a request is delimited (RFC 9112 6.3).
#[derive(Clone, Copy, PartialEq, Eq, Debug)]
pub(crate) enum Framing {
    /// Neither Content-Length nor Transfer-Encoding: no body.
    None,
    /// Content-Length.
    Length(u64),
    /// Transfer-Encoding: chunked.
    Chunked,
}

/// A request that is not served; the connection ends with the answer.
#[derive(Clone, Copy, PartialEq, Eq, Debug)]
pub(crate) struct Refusal {
    pub(crate) status: u16,
    pub(crate) why: &'static str,
}

/// A request head in the bytes it came in.
#[derive(Clone, Copy, PartialEq, Eq, Debug)]
pub(crate) struct Head<'b> {
    /// `None`: a method that nobody here knows.
    pub(crate) method: Option<Method>,
    pub(crate) target: &'b str,
    /// HTTP/1.0.
    pub(crate) old: bool,
    pub(crate) keep_alive: bool,
    pub(crate) framing: Framing,
    /// `Expect: 100-continue` from a client that understands 100.
    pub(crate) expects_continue: bool,
    /// An expectation other than that.
    pub(crate) expects_unknown: bool,
    pub(crate) range: Option<&'b [u8]>,
    pub(crate) if_range: Option<&'b [u8]>,
    pub(crate) if_match: Option<&'b [u8]>,
    pub(crate) if_none_match: Option<&'b [u8]>,
    pub(crate) if_modified_since: Option<&'b [u8]>,
    pub(crate) if_unmodified_since: Option<&'b [u8]>,
}

/// Room for the header fields of one request.
pub(crate) type HeaderRoom<'b> = [MaybeUninit<Header<'b>>; HEADERS_MAX];

/// What is to be thought of the bytes from the start of a request on.
#[derive(Debug)]
pub(crate) enum Verdict<'h, 'b> {
    /// So far so good.
    Incomplete,
    /// Nothing good will come of it.
    Refused(Refusal),
    /// A head of `len` bytes.
    Complete { len: usize, head: Head<'b>, headers: &'h [Header<'b>] },
}

const MALFORMED: Refusal = Refusal { status: 400, why: "The request is not HTTP/1.1 as RFC 9112 writes it." };

/// Judges `bytes`, which start where a request starts. Only complete lines count, and never more than [`HEAD_MAX`] bytes,
/// so that the verdict does not depend on how the bytes arrived.
pub(crate) fn judge<'h, 'b>(bytes: &'b [u8], room: &'h mut HeaderRoom<'b>) -> Verdict<'h, 'b> {
    let shown = &bytes[..bytes.len().min(HEAD_MAX)];
    let Some(last) = memrchr(b'\n', shown) else { return judge_line(shown) };
    let mut request = httparse::Request::new(&mut []);
    match request.parse_with_uninit_headers(&shown[..=last], room) {
        Ok(httparse::Status::Complete(len)) => {
            if len > LINE_MAX && line_too_long(shown) {
                return Verdict::Refused(TARGET_TOO_LONG);
            }
            let (Some(method), Some(target), Some(minor)) = (request.method, request.path, request.version) else {
                return Verdict::Refused(MALFORMED);
            };
            let headers: &'h [Header<'b>] = request.headers;
            match Head::examine(method, target, minor == 0, headers) {
                Ok(head) => Verdict::Complete { len, head, headers },
                Err(refusal) => Verdict::Refused(refusal),
            }
        }
        _ if line_too_long(shown) => Verdict::Refused(TARGET_TOO_LONG),
        Ok(httparse::Status::Partial) if shown.len() == HEAD_MAX => Verdict::Refused(HEAD_TOO_LARGE),
        Ok(httparse::Status::Partial) => Verdict::Incomplete,
        Err(httparse::Error::TooManyHeaders) => Verdict::Refused(HEAD_TOO_LARGE),
        Err(httparse::Error::Version) => Verdict::Refused(judge_version(shown)),
        Err(_) => Verdict::Refused(MALFORMED),
    }
}

const TARGET_TOO_LONG: Refusal =
    Refusal { status: 414, why: "The request line is longer than 8192 bytes, which is the most that is read here." };
const HEAD_TOO_LARGE: Refusal = Refusal {
    status: 431,
    why: "The request head has more than 64 fields or 16384 bytes, which is the most that is read here.",
};

/// A request line of which no end is in sight.
fn judge_line(shown: &[u8]) -> Verdict<'static, 'static> {
    match shown.first() {
        // A TLS greeting or other noise: no use in waiting for its end.
        Some(&byte) if !is_token_byte(byte) => Verdict::Refused(MALFORMED),
        _ if line_too_long(shown) => Verdict::Refused(TARGET_TOO_LONG),
        _ => Verdict::Incomplete,
    }
}

fn line_too_long(shown: &[u8]) -> bool {
    shown.len() > LINE_MAX && memchr(b'\n', &shown[..=LINE_MAX]).is_none()
}

/// A well-formed version that is not ours is 505; anything else in its place is 400.
fn judge_version(shown: &[u8]) -> Refusal {
    let line = &shown[..memchr(b'\n', shown).unwrap_or(shown.len())];
    let line = line.strip_suffix(b"\r").unwrap_or(line);
    match line.rsplit(|&byte| byte == b' ').next() {
        // Ours, so that something else is wrong with the line.
        Some(b"HTTP/1.1" | b"HTTP/1.0") => MALFORMED,
        Some(
            [b'H', b'T', b'T', b'P', b'/', b'0'..=b'9', b'.', b'0'..=b'9']
            | [b'H', b'T', b'T', b'P', b'/', b'0'..=b'9'],
        ) => Refusal { status: 505, why: "This server speaks HTTP/1.1 and HTTP/1.0." },
        _ => MALFORMED,
    }
}

fn is_token_byte(byte: u8) -> bool {
    byte.is_ascii_alphanumeric() || b"!#$%&'*+-.^_`|~".contains(&byte)
}

impl<'b> Head<'b> {
    /// Draws from the fields what decides framing and answer.
    fn examine(method: &str, target: &'b str, old: bool, headers: &[Header<'b>]) -> Result<Self, Refusal> {
        let mut head = Head {
            method: Method::parse(method),
            target,
            old,
            keep_alive: false,
            framing: Framing::None,
            expects_continue: false,
            expects_unknown: false,
            range: None,
            if_range: None,
            if_match: None,
            if_none_match: None,
            if_modified_since: None,
            if_unmodified_since: None,
        };
        let mut seen = Seen::default();
        for header in headers {
            head.note(header, &mut seen)?;
        }
        head.keep_alive = !seen.close && (!old || seen.keep_alive);
        head.framing = match (seen.length, seen.chunked) {
            (Some(_), true) => {
                return refuse("A request must not have both Content-Length and Transfer-Encoding here.");
            }
            (None, true) if old => return refuse("HTTP/1.0 has no Transfer-Encoding."),
            (None, true) => Framing::Chunked,
            (Some(length), false) => Framing::Length(length),
            (None, false) => Framing::None,
        };
        if !old && !seen.host {
            return refuse("An HTTP/1.1 request must have a Host field.");
        }
        if seen.foreign_coding {
            return Err(Refusal { status: 501, why: "The only transfer coding known here is chunked." });
        }
        if old {
            (head.expects_continue, head.expects_unknown) = (false, false);
        }
        Ok(head)
    }

    fn note(&mut self, header: &Header<'b>, seen: &mut Seen) -> Result<(), Refusal> {
        let (name, value) = (header.name, header.value);
        let is = |wanted: &str| name.eq_ignore_ascii_case(wanted);
        match name.len() {
            4 if is("host") => {
                if core::mem::replace(&mut seen.host, true) {
                    return refuse("A request must not have more than one Host field.");
                }
                if value.iter().any(|byte| matches!(byte, b' ' | b'\t' | b'/' | b'?' | b'#' | b'@' | b',' | b'\\')) {
                    return refuse("The Host field does not name a host.");
                }
            }
            5 if is("range") => once(&mut self.range, value),
            6 if is("expect") => {
                let continues = value.trim_ascii().eq_ignore_ascii_case(b"100-continue");
                self.expects_continue |= continues;
                self.expects_unknown |= !continues;
            }
            8 if is("if-range") => once(&mut self.if_range, value),
            8 if is("if-match") => once(&mut self.if_match, value),
            10 if is("connection") => {
                for token in value.split(|&byte| byte == b',') {
                    seen.close |= token.trim_ascii().eq_ignore_ascii_case(b"close");
                    seen.keep_alive |= token.trim_ascii().eq_ignore_ascii_case(b"keep-alive");
                }
            }
            13 if is("if-none-match") => once(&mut self.if_none_match, value),
            14 if is("content-length") => {
                let length = content_length(value);
                if length.is_none() || seen.length.is_some() {
                    return refuse("A request must have one Content-Length at most, and it must be a number.");
                }
                seen.length = length;
            }
            17 if is("transfer-encoding") => {
                if core::mem::replace(&mut seen.coded, true) {
                    return refuse("A request must not have more than one Transfer-Encoding field here.");
                }
                seen.chunked = true;
                seen.foreign_coding = !value.trim_ascii().eq_ignore_ascii_case(b"chunked");
            }
            17 if is("if-modified-since") => once(&mut self.if_modified_since, value),
            19 if is("if-unmodified-since") => once(&mut self.if_unmodified_since, value),
            _ => {}
        }
        Ok(())
    }
}

/// What the fields said so far.
#[derive(Default)]
struct Seen {
    host: bool,
    close: bool,
    keep_alive: bool,
    length: Option<u64>,
    coded: bool,
    chunked: bool,
    foreign_coding: bool,
}

fn refuse<T>(why: &'static str) -> Result<T, Refusal> {
    Err(Refusal { status: 400, why })
}

/// Keeps the value of a field that may come once; of a second one nothing is believed.
fn once<'b>(slot: &mut Option<&'b [u8]>, value: &'b [u8]) {
    *slot = Some(if slot.is_some() { b"" } else { value });
}

/// Digits only, below 2^63 (RFC 9110 8.6).
fn content_length(value: &[u8]) -> Option<u64> {
    if value.is_empty() {
        return None;
    }
    let mut length = 0u64;
    for &byte in value {
        if !byte.is_ascii_digit() {
            return None;
        }
        length = length.checked_mul(10)?.checked_add(u64::from(byte - b'0'))?;
    }
    (length <= i64::MAX as u64).then_some(length)
}
