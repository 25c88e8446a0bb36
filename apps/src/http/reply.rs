//! Answers as bytes.

use super::date::http_date;
use super::page::reason;
use super::response::Response;
use super::site::File;
use std::io::Write;

/// What becomes of the connection after an answer.
#[derive(Clone, Copy, PartialEq, Eq, Debug)]
pub(crate) enum Conn {
    /// It stays, as HTTP/1.1 has it.
    Stay,
    /// It stays, and an HTTP/1.0 client is told so.
    StayOld,
    /// It ends.
    Close,
}

const OK: &[u8] = b"HTTP/1.1 200 OK\r\n";

/// The start of every answer: for each [`Conn`], the status line of a 200 and the fields that all answers have.
/// Written once a second, copied for every answer.
#[derive(Debug, Default)]
pub(crate) struct Preambles([Vec<u8>; 3]);

impl Preambles {
    pub(crate) fn set_date(&mut self, unix_seconds: u64) {
        let date = http_date(unix_seconds);
        for (conn, text) in ["", "Connection: keep-alive\r\n", "Connection: close\r\n"].into_iter().enumerate() {
            self.0[conn] = format!("HTTP/1.1 200 OK\r\nServer: khamsin\r\nDate: {date}\r\n{text}").into_bytes();
        }
    }

    /// The status line of a 200 and the common fields.
    #[inline]
    pub(crate) fn ok(&self, conn: Conn) -> &[u8] {
        &self.0[conn as usize]
    }

    /// Appends a status line and the common fields.
    fn start(&self, out: &mut Vec<u8>, status: u16, conn: Conn) {
        out.clear();
        push(out, format_args!("HTTP/1.1 {status} {}\r\n", reason(status)));
        out.extend_from_slice(&self.0[conn as usize][OK.len()..]);
    }

    /// Writes a whole answer to `out`; without its body where `bodiless` (HEAD).
    pub(crate) fn response(&self, out: &mut Vec<u8>, response: &Response, conn: Conn, bodiless: bool) {
        self.start(out, response.status, conn);
        out.extend_from_slice(&response.fields);
        if matches!(response.status, 204 | 304) {
            out.extend_from_slice(b"\r\n");
            return;
        }
        push(out, format_args!("Content-Length: {}\r\n\r\n", response.body.len()));
        if !bodiless {
            out.extend_from_slice(&response.body);
        }
    }

    /// Writes the head of a 206 for bytes `start..end`.
    pub(crate) fn partial(&self, out: &mut Vec<u8>, file: &File, start: usize, end: usize, conn: Conn) {
        self.start(out, 206, conn);
        out.extend_from_slice(file.type_field());
        let (len, last, all) = (end - start, end - 1, file.len());
        push(out, format_args!("Content-Length: {len}\r\nContent-Range: bytes {start}-{last}/{all}\r\n"));
        out.extend_from_slice(file.validator_fields());
        out.extend_from_slice(b"\r\n");
    }

    /// Writes a 304.
    pub(crate) fn not_modified(&self, out: &mut Vec<u8>, file: &File, conn: Conn) {
        self.start(out, 304, conn);
        out.extend_from_slice(file.validator_fields());
        out.extend_from_slice(b"\r\n");
    }

    /// Writes the head of an answer whose body follows as it comes: `length` bytes, in chunks, or until the end.
    pub(crate) fn stream(&self, out: &mut Vec<u8>, fields: &str, length: Length, conn: Conn) {
        self.start(out, 200, conn);
        out.extend_from_slice(fields.as_bytes());
        match length {
            Length::Known(length) => push(out, format_args!("Content-Length: {length}\r\n")),
            Length::Chunked => out.extend_from_slice(b"Transfer-Encoding: chunked\r\n"),
            Length::UntilClose => {}
        }
        out.extend_from_slice(b"\r\n");
    }
}

/// How a streamed body is delimited.
#[derive(Clone, Copy, PartialEq, Eq, Debug)]
pub(crate) enum Length {
    /// So many bytes.
    Known(u64),
    /// In chunks.
    Chunked,
    /// By the end of the stream.
    UntilClose,
}

/// Appends formatted text.
pub(crate) fn push(out: &mut Vec<u8>, text: core::fmt::Arguments<'_>) {
    out.write_fmt(text).expect("a vector takes every byte");
}
