//! What HTTP answers must look like, byte for byte where it matters.

use super::Request;
use crate::sim::server::{FILES, body_of_file, file_name};

/// Bytes of a request.
pub(super) fn request(request: Request, stream: u64, close: bool) -> Vec<u8> {
    let connection = if close { "Connection: close\r\n" } else { "" };
    match request {
        Request::File(index) => {
            format!("GET /{} HTTP/1.1\r\nHost: sim\r\n{connection}\r\n", file_name(index)).into_bytes()
        }
        Request::Missing => format!("GET /nowhere HTTP/1.1\r\nHost: sim\r\n{connection}\r\n").into_bytes(),
        Request::Upload(len) => {
            let head = format!("POST /echo HTTP/1.1\r\nHost: sim\r\nContent-Length: {len}\r\n{connection}\r\n");
            [head.into_bytes(), crate::sim::dice::pattern(stream, len)].concat()
        }
    }
}

/// How much of an answer is there.
#[derive(Clone, Copy, PartialEq, Eq, Debug)]
pub(super) enum Answer {
    /// Not all of it, and right so far: it takes at least so many bytes.
    Needs(usize),
    /// All of its so many bytes.
    Whole(usize),
    /// The server has given up waiting for the request.
    TooLate,
}

/// Looks at `bytes`, which start with the answer to `request`.
///
/// # Errors
/// What is wrong with it.
pub(super) fn check(request: Request, stream: u64, bytes: &[u8]) -> Result<Answer, String> {
    let Some(head) = bytes.windows(4).position(|window| window == b"\r\n\r\n") else {
        return if bytes.len() > 4096 {
            Err("an answer without an end of its head".to_owned())
        } else {
            Ok(Answer::Needs(bytes.len() + 1))
        };
    };
    let (begins, body) = (head + 4, &bytes[head + 4..]);
    let head = String::from_utf8_lossy(&bytes[..head]).into_owned();
    let mut lines = head.split("\r\n");
    let status = lines.next().unwrap_or_default();
    let wanted = if request == Request::Missing { "HTTP/1.1 404 " } else { "HTTP/1.1 200 " };
    if status.starts_with("HTTP/1.1 408 ") {
        return Ok(Answer::TooLate);
    }
    if !status.starts_with(wanted) {
        return Err(format!("{status:?} in answer to {request:?}"));
    }
    let length = lines.find_map(|line| line.strip_prefix("Content-Length: ")).and_then(|text| text.parse().ok());
    let len: usize = length.ok_or_else(|| format!("no Content-Length in answer to {request:?}: {head:?}"))?;
    let expected = match request {
        Request::File(index) => Some(body_of_file(index, FILES[index])),
        Request::Upload(len) => Some(crate::sim::dice::pattern(stream, len)),
        Request::Missing => None,
    };
    let here = &body[..body.len().min(len)];
    if let Some(expected) = expected {
        if expected.len() != len {
            return Err(format!("{len} bytes in answer to {request:?}"));
        }
        if let Some(at) = here.iter().zip(&expected).position(|(got, want)| got != want) {
            return Err(format!("byte {at} of the body of {request:?} is wrong"));
        }
    }
    Ok(if body.len() >= len { Answer::Whole(begins + len) } else { Answer::Needs(begins + len) })
}
