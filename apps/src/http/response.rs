//! A response as a callback builds it.

use super::page;
use std::borrow::Cow;

/// Status, fields and body. Content-Length, Date, Server and Connection are added when it is sent.
#[derive(Clone, PartialEq, Eq, Debug)]
pub struct Response {
    pub(crate) status: u16,
    pub(crate) fields: Vec<u8>,
    pub(crate) body: Cow<'static, [u8]>,
}

impl Response {
    /// A response with a status from 200 to 599 (any other becomes 500) and no body.
    pub fn new(status: u16) -> Self {
        let status = if (200..600).contains(&status) { status } else { 500 };
        Response { status, fields: Vec::new(), body: Cow::Borrowed(&[]) }
    }

    /// 200 with plain text.
    pub fn text(text: impl Into<String>) -> Self {
        Response::new(200).header("Content-Type", "text/plain; charset=utf-8").body(text.into().into_bytes())
    }

    /// 200 with HTML.
    pub fn html(html: impl Into<String>) -> Self {
        Response::new(200).header("Content-Type", "text/html; charset=utf-8").body(html.into().into_bytes())
    }

    /// 200 with JSON.
    pub fn json(value: &serde_json::Value) -> Self {
        Response::new(200).header("Content-Type", "application/json").body(format!("{value}\n").into_bytes())
    }

    /// An error with a small page. `why` goes into the page as it is: it must not hold text of the peer's.
    pub fn error(status: u16, why: &str) -> Self {
        let page = page::error_page(status, why);
        Response::new(status).header("Content-Type", "text/html; charset=utf-8").body(page.into_bytes())
    }

    /// 405, with the methods that are allowed, commas between.
    pub fn method_not_allowed(allow: &str) -> Self {
        Response::error(405, "This resource does not answer that method.").header("Allow", allow)
    }

    /// Adds a field. A name or value that could not be sent, because of a line end say, is left out.
    #[must_use]
    pub fn header(mut self, name: &str, value: &str) -> Self {
        let sound_name =
            !name.is_empty() && name.bytes().all(|byte| byte.is_ascii_alphanumeric() || byte == b'-' || byte == b'_');
        let sound_value = !value.bytes().any(|byte| (byte < b' ' && byte != b'\t') || byte == 0x7f);
        if sound_name && sound_value {
            for part in [name, ": ", value, "\r\n"] {
                self.fields.extend_from_slice(part.as_bytes());
            }
        }
        self
    }

    /// Sets the body.
    #[must_use]
    pub fn body(mut self, body: impl Into<Cow<'static, [u8]>>) -> Self {
        self.body = body.into();
        self
    }

    /// The status.
    pub fn status(&self) -> u16 {
        self.status
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn fields_cannot_be_split() {
        let response = Response::new(200)
            .header("X-Good", "a\tb")
            .header("X-Bad", "a\r\nX-Evil: 1")
            .header("X: Evil", "1")
            .header("", "1");
        assert_eq!(response.fields, b"X-Good: a\tb\r\n");
    }

    #[test]
    fn odd_statuses_become_500() {
        for status in [0, 100, 199, 600, 65535] {
            assert_eq!(Response::new(status).status(), 500);
        }
    }
}
