//! The head of an HTTP/1.1 response, as far as it says where the answer ends (RFC 9112 6.3).

use super::judge::Fault;

/// Most bytes of a head.
pub(super) const HEAD_MAX: usize = 16 * 1024;

/// What a head says.
#[derive(Clone, Copy, PartialEq, Eq, Debug)]
pub(super) struct Head {
    pub(super) status: u16,
    /// Bytes of the head itself.
    pub(super) len: usize,
    pub(super) body: Body,
    /// The server ends the connection behind the answer (RFC 9112 9.6).
    pub(super) close: bool,
}

/// How the body is delimited.
#[derive(Clone, Copy, PartialEq, Eq, Debug)]
pub(super) enum Body {
    Length(u64),
    Chunked,
    /// It ends with the connection.
    UntilClose,
}

/// Reads a head at the start of `bytes`; `None`: it goes on behind them.
///
/// # Errors
/// It is no head of an HTTP/1.1 response.
pub(super) fn parse(bytes: &[u8]) -> Result<Option<Head>, Fault> {
    let mut fields = [httparse::EMPTY_HEADER; 64];
    let mut response = httparse::Response::new(&mut fields);
    let len = match response.parse(bytes) {
        Ok(httparse::Status::Complete(len)) => len,
        Ok(httparse::Status::Partial) if bytes.len() < HEAD_MAX => return Ok(None),
        Ok(httparse::Status::Partial) | Err(_) => return Err(Fault::Head),
    };
    let status = response.code.ok_or(Fault::Head)?;
    let (mut body, mut close) = (Body::UntilClose, response.version == Some(0));
    for field in response.headers.iter() {
        if field.name.eq_ignore_ascii_case("transfer-encoding") {
            if !field.value.eq_ignore_ascii_case(b"chunked") {
                return Err(Fault::Head);
            }
            body = Body::Chunked;
        } else if field.name.eq_ignore_ascii_case("content-length") && body != Body::Chunked {
            let text = str::from_utf8(field.value).map_err(|_| Fault::Head)?;
            body = Body::Length(text.trim().parse().map_err(|_| Fault::Head)?);
        } else if field.name.eq_ignore_ascii_case("connection") {
            let options = str::from_utf8(field.value).unwrap_or("").split(',').map(str::trim);
            close = options.fold(close, |close, option| match option {
                o if o.eq_ignore_ascii_case("close") => true,
                o if o.eq_ignore_ascii_case("keep-alive") => false,
                _ => close,
            });
        }
    }
    if status == 204 || status == 304 {
        body = Body::Length(0);
    }
    Ok(Some(Head { status, len, body, close }))
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn heads_say_where_the_answer_ends() {
        let of = |text: &str| parse(text.as_bytes());
        let length = "HTTP/1.1 200 OK\r\ncontent-length: 12\r\n\r\nbody";
        assert_eq!(of(length), Ok(Some(Head { status: 200, len: 39, body: Body::Length(12), close: false })));
        assert_eq!(of(&length[..38]), Ok(None));
        let chunked = "HTTP/1.1 404 No\r\nTransfer-Encoding: chunked\r\n\r\n";
        assert_eq!(of(chunked).unwrap().unwrap().body, Body::Chunked);
        assert_eq!(of("HTTP/1.0 200 OK\r\n\r\n").unwrap().unwrap().body, Body::UntilClose);
        assert_eq!(of("HTTP/1.1 304 Same\r\nContent-Length: 9\r\n\r\n").unwrap().unwrap().body, Body::Length(0));
        let closes = |text| of(text).unwrap().unwrap().close;
        assert!(closes("HTTP/1.0 200 OK\r\n\r\n") && closes("HTTP/1.1 200 OK\r\nconnection: x, Close\r\n\r\n"));
        assert!(!closes("HTTP/1.1 200 OK\r\n\r\n") && !closes("HTTP/1.0 200 OK\r\nConnection: keep-alive\r\n\r\n"));
        for wrong in ["SSH-2.0-OpenSSH\r\n\r\n", "HTTP/1.1 200 OK\r\nContent-Length: many\r\n\r\n"] {
            assert_eq!(of(wrong), Err(Fault::Head), "{wrong}");
        }
        assert_eq!(of(&format!("HTTP/1.1 200 OK\r\nA: {}", "x".repeat(HEAD_MAX))), Err(Fault::Head));
    }
}
