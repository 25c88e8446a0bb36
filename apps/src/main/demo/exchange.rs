//! One request and its answer, of which every byte is known beforehand.

/// What a connection says, over and over.
#[derive(Clone, Copy, PartialEq, Eq, Debug)]
pub(crate) enum Talk {
    /// Random bytes to the echo application, the same back.
    Echo,
    /// The page that every visitor gets.
    Page,
    /// Random bytes to `POST /echo`, the same back.
    Post,
}

/// Pseudo-random bytes from a seed (xorshift64*, Marsaglia 2003 and Vigna 2016): cheap, and different on each connection.
#[derive(Clone, Debug)]
pub(crate) struct Bytes(u64);

impl Bytes {
    pub(crate) fn new(seed: u64) -> Self {
        Bytes(seed.wrapping_mul(0x9e37_79b9_7f4a_7c15) | 1)
    }

    fn word(&mut self) -> u64 {
        self.0 ^= self.0 >> 12;
        self.0 ^= self.0 << 25;
        self.0 ^= self.0 >> 27;
        self.0.wrapping_mul(0x2545_f491_4f6c_dd1d)
    }

    /// A number below `limit`.
    pub(crate) fn below(&mut self, limit: usize) -> usize {
        (self.word() >> 33) as usize % limit.max(1)
    }

    fn fill(&mut self, into: &mut Vec<u8>, len: usize) {
        let end = into.len() + len;
        while into.len() < end {
            let word = self.word().to_le_bytes();
            let n = word.len().min(end - into.len());
            into.extend_from_slice(&word[..n]);
        }
    }
}

/// A request on its way and the answer that must come.
#[derive(Debug)]
pub(crate) struct Exchange {
    talk: Talk,
    /// The request as it goes out.
    pub(crate) request: Vec<u8>,
    /// Where in `request` the bytes that must come back begin.
    body: usize,
    /// Bytes of the answer's head; known once it was whole.
    head: Option<usize>,
    /// Bytes of the answer that were found right, from its start.
    verified: usize,
}

/// Longest body of a request, bytes: more than one segment, less than a window.
const BODY_MAX: usize = 4096;
/// Longest head of an answer, bytes.
const HEAD_MAX: usize = 4096;

impl Exchange {
    pub(crate) fn new(talk: Talk) -> Self {
        Exchange { talk, request: Vec::with_capacity(BODY_MAX + 256), body: 0, head: None, verified: 0 }
    }

    /// Writes the next request.
    pub(crate) fn renew(&mut self, host: &str, bytes: &mut Bytes) {
        (self.head, self.verified) = (None, 0);
        self.request.clear();
        let len = 1 + bytes.below(BODY_MAX);
        match self.talk {
            Talk::Echo => self.head = Some(0),
            Talk::Page => self.request.extend_from_slice(format!("GET / HTTP/1.1\r\nHost: {host}\r\n\r\n").as_bytes()),
            Talk::Post => self.request.extend_from_slice(
                format!("POST /echo HTTP/1.1\r\nHost: {host}\r\nContent-Length: {len}\r\n\r\n").as_bytes(),
            ),
        }
        self.body = self.request.len();
        if self.talk != Talk::Page {
            bytes.fill(&mut self.request, len);
        }
    }

    /// Judges the answer as far as it came; true when it is whole and right. `page` is the body of the page.
    ///
    /// # Errors
    /// What is wrong with it.
    pub(crate) fn judge(&mut self, answer: &[u8], page: &[u8]) -> Result<bool, String> {
        let expected = if self.talk == Talk::Page { page } else { &self.request[self.body..] };
        let head = match self.head {
            Some(head) => head,
            None => match head_of(answer, expected.len())? {
                Some(head) => *self.head.insert(head),
                None => return Ok(false),
            },
        };
        let came = &answer[head..];
        if came.len() > expected.len() {
            return Err(format!("{} bytes more than were due", came.len() - expected.len()));
        }
        let new = self.verified..came.len();
        if came[new.clone()] != expected[new.clone()] {
            let at = new.clone().find(|&i| came[i] != expected[i]).unwrap_or(new.start);
            return Err(format!("byte {at} is {:#04x} and should be {:#04x}", came[at], expected[at]));
        }
        self.verified = came.len();
        Ok(self.verified == expected.len())
    }
}

/// The length of the head of an HTTP answer, once it is whole: 200, and a body of `body` bytes.
fn head_of(answer: &[u8], body: usize) -> Result<Option<usize>, String> {
    let mut headers = [httparse::EMPTY_HEADER; 32];
    let mut response = httparse::Response::new(&mut headers);
    let head = match response.parse(answer) {
        Ok(httparse::Status::Complete(head)) => head,
        Ok(httparse::Status::Partial) if answer.len() <= HEAD_MAX => return Ok(None),
        Ok(httparse::Status::Partial) => return Err(format!("a head longer than {HEAD_MAX} bytes")),
        Err(error) => return Err(format!("a head that is no HTTP ({error})")),
    };
    if response.code != Some(200) {
        return Err(format!("status {} and not 200", response.code.unwrap_or(0)));
    }
    let length = response.headers.iter().find(|h| h.name.eq_ignore_ascii_case("content-length"));
    match length.and_then(|h| std::str::from_utf8(h.value).ok()?.parse::<usize>().ok()) {
        Some(length) if length == body => Ok(Some(head)),
        Some(length) => Err(format!("Content-Length {length} and not {body}")),
        None => Err("no Content-Length".into()),
    }
}

/// The body of a whole HTTP answer; `None` as long as some of it is missing.
///
/// # Errors
/// It is not a 200 with a Content-Length.
pub(crate) fn page_of(answer: &[u8]) -> Result<Option<&[u8]>, String> {
    let mut headers = [httparse::EMPTY_HEADER; 32];
    let mut response = httparse::Response::new(&mut headers);
    let Ok(httparse::Status::Complete(head)) = response.parse(answer) else { return Ok(None) };
    let length = response.headers.iter().find(|h| h.name.eq_ignore_ascii_case("content-length"));
    let length: usize = length
        .and_then(|h| std::str::from_utf8(h.value).ok()?.parse().ok())
        .ok_or("the first page had no Content-Length")?;
    if response.code != Some(200) {
        return Err(format!("the first page had status {} and not 200", response.code.unwrap_or(0)));
    }
    Ok(answer.get(head..head + length))
}

#[cfg(test)]
mod tests {
    use super::*;

    fn exchange(talk: Talk) -> Exchange {
        let mut exchange = Exchange::new(talk);
        exchange.renew("198.18.0.2", &mut Bytes::new(7));
        exchange
    }

    fn answer_to(exchange: &Exchange) -> Vec<u8> {
        let body = &exchange.request[exchange.body..];
        [format!("HTTP/1.1 200 OK\r\ncontent-length: {}\r\n\r\n", body.len()).as_bytes(), body].concat()
    }

    #[test]
    fn an_echo_is_judged_byte_by_byte() {
        let mut e = exchange(Talk::Echo);
        let sent = e.request.clone();
        for end in 0..sent.len() {
            assert_eq!(e.judge(&sent[..end], b""), Ok(false));
        }
        assert_eq!(e.judge(&sent, b""), Ok(true));
        let mut e = exchange(Talk::Echo);
        let mut wrong = sent.clone();
        *wrong.last_mut().unwrap() ^= 1;
        assert!(e.judge(&wrong, b"").is_err());
        let mut e = exchange(Talk::Echo);
        assert!(e.judge(&[&sent[..], b"x"].concat(), b"").unwrap_err().contains("more"));
    }

    #[test]
    fn a_post_needs_its_head_and_its_body() {
        let mut e = exchange(Talk::Post);
        let answer = answer_to(&e);
        for end in 0..answer.len() {
            assert_eq!(e.judge(&answer[..end], b""), Ok(false), "{end}");
        }
        assert_eq!(e.judge(&answer, b""), Ok(true));
    }

    #[test]
    fn a_page_must_be_the_page() {
        let whole = b"HTTP/1.1 200 OK\r\nContent-Length: 5\r\n\r\nhello";
        assert_eq!(page_of(whole), Ok(Some(&b"hello"[..])));
        assert_eq!(page_of(&whole[..20]), Ok(None));
        assert_eq!(page_of(&whole[..40]), Ok(None));
        assert_eq!(exchange(Talk::Page).judge(whole, b"hello"), Ok(true));
        assert!(exchange(Talk::Page).judge(whole, b"jello").is_err());
        assert!(exchange(Talk::Page).judge(b"HTTP/1.1 404 No\r\nContent-Length: 5\r\n\r\n", b"hello").is_err());
        assert!(exchange(Talk::Page).judge(b"HTTP/1.1 200 OK\r\n\r\n", b"hello").is_err());
        assert!(exchange(Talk::Page).judge(b"SSH-2.0\r\n\r\n", b"hello").is_err());
    }

    #[test]
    fn two_connections_say_different_things() {
        let (mut a, mut b) = (Exchange::new(Talk::Echo), Exchange::new(Talk::Echo));
        a.renew("h", &mut Bytes::new(1));
        b.renew("h", &mut Bytes::new(2));
        assert_ne!(a.request[..8.min(a.request.len())], b.request[..8.min(b.request.len())]);
    }
}
