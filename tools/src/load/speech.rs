//! What a connection says, as a function of where in its stream it is: nothing sent is ever kept.

use super::plan::Question;

/// Bytes of the echo pattern before it repeats: a prime, so that no power of two hides a shift.
const PATTERN: usize = 65_521;
/// Bytes that can be had in one piece at least.
const PIECE: usize = 65_536;

/// An endless stream of requests.
pub struct Speech {
    bytes: Vec<u8>,
    period: usize,
    request_len: usize,
}

impl Speech {
    /// What asks `question` over and over; `last`: over a connection that ends with the answer.
    pub fn new(question: &Question, last: bool) -> Speech {
        match question {
            Question::Get { host, path, .. } => {
                let close = if last { "Connection: close\r\n" } else { "" };
                let one = format!("GET {path} HTTP/1.1\r\nHost: {host}\r\n{close}\r\n").into_bytes();
                let period = one.len();
                let bytes = one.repeat(1 + PIECE.div_ceil(period));
                Speech { bytes, period, request_len: period }
            }
            Question::Echo { size } => {
                let mut bytes = crate::pages::pattern(PATTERN, 0x6b68);
                bytes.extend_from_within(..PIECE.min(PATTERN));
                Speech { bytes, period: PATTERN, request_len: *size }
            }
        }
    }

    /// Bytes of one request.
    pub fn request_len(&self) -> usize {
        self.request_len
    }

    /// Where connection `id` starts in the stream: echo connections differ, so that an answer to another one shows.
    pub fn start(&self, id: u32) -> u32 {
        if self.period == self.request_len { 0 } else { (u64::from(id) * 7919 % self.period as u64) as u32 }
    }

    /// At most `limit` bytes of the stream at `offset`, and at least one where `limit` allows.
    #[inline]
    pub fn at(&self, offset: u32, limit: usize) -> &[u8] {
        let rest = self.bytes.get(offset as usize..).unwrap_or(&[]);
        rest.get(..limit).unwrap_or(rest)
    }

    /// The offset `n` bytes further.
    #[inline]
    pub fn advance(&self, offset: u32, n: usize) -> u32 {
        let next = offset as usize + n;
        // One request at a time is the usual case, and a comparison is cheaper than a division.
        if next < self.period { next as u32 } else { (next % self.period) as u32 }
    }

    /// Whether `bytes` are what the stream has at `offset`.
    pub fn matches(&self, mut offset: u32, mut bytes: &[u8]) -> bool {
        while !bytes.is_empty() {
            let piece = self.at(offset, bytes.len());
            let (head, rest) = bytes.split_at(piece.len());
            if head != piece || piece.is_empty() {
                return false;
            }
            offset = self.advance(offset, head.len());
            bytes = rest;
        }
        true
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_stream_is_the_same_however_it_is_cut() {
        let get = Question::Get { host: "h".into(), path: "/p".into(), status: 200, body: None };
        for question in [get, Question::Echo { size: 100_000 }] {
            let speech = Speech::new(&question, false);
            let (mut offset, mut stream) = (speech.start(5), Vec::new());
            for cut in [1, 7, 65_536, 3, 70_000, 12] {
                let piece = speech.at(offset, cut);
                assert!(!piece.is_empty() && piece.len() <= cut);
                stream.extend_from_slice(piece);
                offset = speech.advance(offset, piece.len());
            }
            assert!(speech.matches(speech.start(5), &stream));
            stream[70_000] ^= 1;
            assert!(!speech.matches(speech.start(5), &stream));
        }
    }

    #[test]
    fn the_last_request_says_so() {
        let get = Question::Get { host: "h:1".into(), path: "/p?q".into(), status: 200, body: None };
        let speech = Speech::new(&get, true);
        let text = String::from_utf8(speech.at(0, speech.request_len()).to_vec()).unwrap();
        assert_eq!(text, "GET /p?q HTTP/1.1\r\nHost: h:1\r\nConnection: close\r\n\r\n");
    }
}
