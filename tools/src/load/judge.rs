//! Whether answers are right, byte by byte as they come.

use super::head::{self, Body, HEAD_MAX, Head};
use super::plan::Question;
use super::speech::Speech;
use std::collections::HashMap;
use std::sync::Arc;
use thiserror::Error;

/// What is wrong with an answer.
#[derive(Clone, Copy, PartialEq, Eq, Debug, Error)]
pub enum Fault {
    /// Not the status that was wanted.
    #[error("the server answered with status {0}; ask for another path, or name the status with --status")]
    Status(u16),
    /// What came is not the head of a response.
    #[error("the server's answer does not begin like an HTTP/1.1 response; is it an HTTP server?")]
    Head,
    /// The chunks of a chunked body are not well-formed.
    #[error("the server's chunked answer is malformed")]
    Chunk,
    /// Another length than the other answers, or than the body that was given.
    #[error("an answer has another length than it should have")]
    Length,
    /// Bytes differ from what they must be.
    #[error("an answer has other bytes than it should have")]
    Bytes,
    /// More bytes than were asked for.
    #[error("the server sent bytes that nobody asked for")]
    Unasked,
}

/// How far the reading of one connection's answers is. 24 bytes, part of every connection's record.
#[derive(Clone, Copy, PartialEq, Eq, Debug, Default)]
pub struct Reader {
    /// Bytes of the present part that are still to come; of a chunk's size line, its value so far.
    left: u64,
    /// Bytes of body so far; echo: where in the stream the answer is.
    done: u64,
    part: Part,
    /// The server ends the connection with the answer that was begun last.
    last: bool,
}

impl Reader {
    /// Whether the answer that was begun last, and perhaps has ended, is this connection's last.
    pub fn is_last(&self) -> bool {
        self.last
    }
}

#[derive(Clone, Copy, PartialEq, Eq, Debug, Default)]
enum Part {
    #[default]
    Head,
    /// The head's beginning is kept aside.
    HeadRest,
    Body,
    UntilClose,
    ChunkSize,
    /// Behind the digits of a chunk's size.
    ChunkSizeRest,
    ChunkData,
    /// The line end behind a chunk.
    ChunkEnd,
    /// A line of the trailer section; `left` is its length so far.
    Trailer,
}

/// Reads answers. One for each thread; what differs by connection is in its [`Reader`].
pub struct Judge {
    speech: Arc<Speech>,
    echo: bool,
    status: u16,
    body: Option<Arc<[u8]>>,
    /// Bytes that every body has, known from the first one where none was given.
    body_len: Option<u64>,
    /// The last head in full, and what it says: servers repeat themselves.
    known: Vec<u8>,
    known_head: Head,
    /// Heads of which only a part has come.
    partial: HashMap<u32, Vec<u8>>,
}

impl Judge {
    /// A judge of answers to `question`, which is asked with `speech`.
    pub fn new(question: &Question, speech: Arc<Speech>) -> Judge {
        let (echo, status, body) = match question {
            Question::Get { status, body, .. } => (false, *status, body.clone()),
            Question::Echo { .. } => (true, 0, None),
        };
        Judge {
            speech,
            echo,
            status,
            body_len: body.as_ref().map(|b| b.len() as u64),
            body,
            known: Vec::with_capacity(HEAD_MAX),
            known_head: Head { status: 0, len: 0, body: Body::UntilClose, close: false },
            partial: HashMap::new(),
        }
    }

    /// A reader for a new connection `id`.
    pub fn open(&mut self, id: u32) -> Reader {
        self.partial.remove(&id);
        let left = if self.echo { self.speech.request_len() as u64 } else { 0 };
        Reader { left, done: u64::from(self.speech.start(id)), part: Part::Head, last: false }
    }

    /// Takes what came next for connection `id`, which has `asked` answers to come; says how many ended with it.
    ///
    /// # Errors
    /// What is wrong with them; the connection is of no further use.
    #[inline]
    pub fn take(&mut self, id: u32, reader: &mut Reader, bytes: &[u8], asked: usize) -> Result<usize, Fault> {
        if self.echo { self.take_echo(reader, bytes, asked) } else { self.take_http(id, reader, bytes, asked) }
    }

    /// The server has ended its stream: says whether that ended an answer, where one was under way.
    ///
    /// # Errors
    /// An answer was cut off.
    pub fn end(&mut self, reader: &mut Reader) -> Result<usize, Fault> {
        match reader.part {
            Part::UntilClose => self.check_length(reader).map(|()| 1),
            Part::Head => Ok(0),
            _ => Err(Fault::Length),
        }
    }

    fn take_echo(&self, reader: &mut Reader, mut bytes: &[u8], asked: usize) -> Result<usize, Fault> {
        let mut ended = 0;
        while !bytes.is_empty() {
            if ended == asked {
                return Err(Fault::Unasked);
            }
            let n = bytes.len().min(reader.left as usize);
            let (now, rest) = bytes.split_at(n);
            if !self.speech.matches(reader.done as u32, now) {
                return Err(Fault::Bytes);
            }
            reader.done = u64::from(self.speech.advance(reader.done as u32, n));
            reader.left -= n as u64;
            if reader.left == 0 {
                reader.left = self.speech.request_len() as u64;
                ended += 1;
            }
            bytes = rest;
        }
        Ok(ended)
    }

    fn take_http(&mut self, id: u32, reader: &mut Reader, mut bytes: &[u8], asked: usize) -> Result<usize, Fault> {
        let mut ended = 0;
        while !bytes.is_empty() {
            if ended == asked {
                return Err(Fault::Unasked);
            }
            let (taken, over) = match reader.part {
                Part::Head => self.take_head(id, reader, bytes)?,
                Part::HeadRest => self.take_head_rest(id, reader, bytes)?,
                Part::Body | Part::UntilClose => self.take_body(reader, bytes)?,
                _ => self.take_chunked(reader, bytes)?,
            };
            bytes = bytes.get(taken..).unwrap_or(&[]);
            if over {
                self.check_length(reader)?;
                *reader = Reader { last: reader.last, ..Reader::default() };
                ended += 1;
            }
        }
        Ok(ended)
    }

    #[inline]
    fn take_head(&mut self, id: u32, reader: &mut Reader, bytes: &[u8]) -> Result<(usize, bool), Fault> {
        if !self.known.is_empty() && bytes.starts_with(&self.known) {
            return self.begin_body(reader, self.known_head);
        }
        match head::parse(bytes)? {
            Some(head) => {
                self.known.clear();
                self.known.extend_from_slice(&bytes[..head.len]);
                self.known_head = head;
                self.begin_body(reader, head)
            }
            None => {
                self.partial.insert(id, bytes.to_vec());
                reader.part = Part::HeadRest;
                Ok((bytes.len(), false))
            }
        }
    }

    #[cold]
    fn take_head_rest(&mut self, id: u32, reader: &mut Reader, bytes: &[u8]) -> Result<(usize, bool), Fault> {
        let whole = self.partial.entry(id).or_default();
        let before = whole.len();
        let room = (HEAD_MAX - before.min(HEAD_MAX)).min(bytes.len());
        whole.extend_from_slice(&bytes[..room]);
        match head::parse(whole)? {
            Some(head) => {
                self.partial.remove(&id);
                let (len, over) = self.begin_body(reader, head)?;
                Ok((len - before, over))
            }
            None => Ok((room, false)),
        }
    }

    /// Behind a head: says how long it was and whether the answer is over.
    fn begin_body(&self, reader: &mut Reader, head: Head) -> Result<(usize, bool), Fault> {
        if head.status != self.status {
            return Err(Fault::Status(head.status));
        }
        (reader.left, reader.done, reader.last) = (0, 0, head.close);
        reader.part = match head.body {
            Body::Length(left) => {
                if self.body_len.is_some_and(|len| len != left) {
                    return Err(Fault::Length);
                }
                reader.left = left;
                Part::Body
            }
            Body::Chunked => Part::ChunkSize,
            Body::UntilClose => Part::UntilClose,
        };
        Ok((head.len, reader.part == Part::Body && reader.left == 0))
    }

    #[inline]
    fn take_body(&self, reader: &mut Reader, bytes: &[u8]) -> Result<(usize, bool), Fault> {
        let counted = reader.part != Part::UntilClose;
        let n = if counted { bytes.len().min(reader.left as usize) } else { bytes.len() };
        self.compare(reader, &bytes[..n])?;
        reader.left -= if counted { n as u64 } else { 0 };
        Ok((n, counted && reader.left == 0))
    }

    #[inline]
    fn compare(&self, reader: &mut Reader, bytes: &[u8]) -> Result<(), Fault> {
        if let Some(body) = &self.body {
            let at = reader.done as usize;
            let wanted = body.get(at..at + bytes.len()).ok_or(Fault::Length)?;
            if wanted != bytes {
                return Err(Fault::Bytes);
            }
        }
        reader.done += bytes.len() as u64;
        Ok(())
    }

    /// One step through a chunked body (RFC 9112 7.1): how many bytes it took and whether the answer is over.
    fn take_chunked(&self, reader: &mut Reader, bytes: &[u8]) -> Result<(usize, bool), Fault> {
        let Some(&first) = bytes.first() else { return Ok((0, false)) };
        match reader.part {
            Part::ChunkData => {
                let (n, over) = self.take_body(reader, bytes)?;
                if over {
                    reader.part = Part::ChunkEnd;
                }
                return Ok((n, false));
            }
            Part::ChunkSize => match (first as char).to_digit(16) {
                Some(digit) if reader.left >> 56 == 0 => reader.left = reader.left << 4 | u64::from(digit),
                Some(_) => return Err(Fault::Chunk),
                None if matches!(first, b'\r' | b';' | b' ') => reader.part = Part::ChunkSizeRest,
                None => return Err(Fault::Chunk),
            },
            Part::ChunkSizeRest if first == b'\n' => {
                reader.part = if reader.left == 0 { Part::Trailer } else { Part::ChunkData };
            }
            Part::ChunkSizeRest => {}
            Part::ChunkEnd => match first {
                b'\r' => {}
                b'\n' => (reader.part, reader.left) = (Part::ChunkSize, 0),
                _ => return Err(Fault::Chunk),
            },
            _ => match first {
                b'\n' if reader.left == 0 => return Ok((1, true)),
                b'\n' => reader.left = 0,
                b'\r' => {}
                _ => reader.left += 1,
            },
        }
        Ok((1, false))
    }

    /// A whole body was read: it is as long as the others.
    fn check_length(&mut self, reader: &Reader) -> Result<(), Fault> {
        if *self.body_len.get_or_insert(reader.done) == reader.done { Ok(()) } else { Err(Fault::Length) }
    }

    /// Bytes of every body, as far as one was seen or given.
    pub fn body_len(&self) -> Option<u64> {
        self.body_len
    }
}

#[cfg(test)]
#[path = "judge_tests.rs"]
mod tests;
