//! Request bodies as they pass: a counted number of bytes, or chunks (RFC 9112 7.1).

use super::parse::Framing;

/// Longest chunk extension, in bytes of its line.
const CHUNK_LINE_MAX: u32 = 1024;
/// Longest trailer section, in bytes.
const TRAILER_MAX: u32 = 8 * 1024;

/// What the decoder found.
#[derive(Clone, Copy, PartialEq, Eq, Debug)]
pub(crate) enum Piece<'b> {
    /// A chunk of so many bytes begins.
    Chunk(u64),
    /// Bytes of the body.
    Data(&'b [u8]),
    /// The chunk is over.
    ChunkEnd,
    /// The body is over.
    End,
}

/// A body that does not keep to the grammar.
#[derive(Clone, Copy, PartialEq, Eq, Debug)]
pub(crate) struct Malformed;

/// Reads one body.
#[derive(Clone, Copy, PartialEq, Eq, Debug)]
pub(crate) enum Body {
    /// So many bytes are still to come.
    Counted(u64),
    /// In chunks.
    Chunked(Chunks),
    /// Read to its end.
    Done,
}

#[derive(Clone, Copy, PartialEq, Eq, Debug)]
pub(crate) enum Chunks {
    /// In the digits of a chunk size, of which `digits` came.
    Size { size: u64, digits: u32 },
    /// Behind the size; the line is `line` bytes long so far.
    Extension { size: u64, line: u32, ended: bool },
    /// In the data.
    Data { left: u64 },
    /// At the line end behind the data, of which the CR may have come.
    DataEnd { ended: bool },
    /// In the trailer section: its length, whether the line is empty so far, whether its CR came.
    Trailer { len: u32, empty: bool, ended: bool },
}

impl Body {
    pub(crate) fn new(framing: Framing) -> Self {
        match framing {
            Framing::None | Framing::Length(0) => Body::Done,
            Framing::Length(length) => Body::Counted(length),
            Framing::Chunked => Body::Chunked(Chunks::Size { size: 0, digits: 0 }),
        }
    }

    pub(crate) fn is_done(&self) -> bool {
        *self == Body::Done
    }

    /// Reads as much of `input` as belongs to the body, tells `found` what it is, and returns how many bytes that was.
    pub(crate) fn read<'b>(&mut self, input: &'b [u8], found: &mut impl FnMut(Piece<'b>)) -> Result<usize, Malformed> {
        let mut at = 0;
        while at < input.len() {
            match self {
                Body::Done => break,
                Body::Counted(left) => {
                    let n = take(left, input.len() - at);
                    found(Piece::Data(&input[at..at + n]));
                    at += n;
                    if *left == 0 {
                        *self = Body::Done;
                        found(Piece::End);
                    }
                }
                Body::Chunked(Chunks::Data { left }) => {
                    let n = take(left, input.len() - at);
                    found(Piece::Data(&input[at..at + n]));
                    at += n;
                    if *left == 0 {
                        *self = Body::Chunked(Chunks::DataEnd { ended: false });
                    }
                }
                Body::Chunked(chunks) => {
                    *self = chunks.step(input[at], found)?;
                    at += 1;
                }
            }
        }
        Ok(at)
    }
}

/// Takes at most `shown` off `left` and says how much.
fn take(left: &mut u64, shown: usize) -> usize {
    let n = usize::try_from(*left).map_or(shown, |left| left.min(shown));
    *left -= n as u64;
    n
}

impl Chunks {
    /// One byte of framing. Line ends are CR LF here and nothing else: a lenient reader of chunk lines is how requests get
    /// smuggled.
    fn step<'b>(self, byte: u8, found: &mut impl FnMut(Piece<'b>)) -> Result<Body, Malformed> {
        Ok(Body::Chunked(match (self, byte) {
            (Chunks::Size { size, digits }, _) if byte.is_ascii_hexdigit() => {
                let digit = (byte as char).to_digit(16).ok_or(Malformed)?;
                // 15 digits are more than anyone sends, and cannot overflow.
                if digits == 15 {
                    return Err(Malformed);
                }
                Chunks::Size { size: size << 4 | u64::from(digit), digits: digits + 1 }
            }
            (Chunks::Size { digits: 0, .. }, _) => return Err(Malformed),
            (Chunks::Size { size, .. }, b'\r') => Chunks::Extension { size, line: 0, ended: true },
            (Chunks::Size { size, .. }, b';' | b' ' | b'\t') => Chunks::Extension { size, line: 1, ended: false },
            (Chunks::Extension { size: 0, ended: true, .. }, b'\n') => {
                Chunks::Trailer { len: 0, empty: true, ended: false }
            }
            (Chunks::Extension { size, ended: true, .. }, b'\n') => {
                found(Piece::Chunk(size));
                Chunks::Data { left: size }
            }
            (Chunks::Extension { size, line, ended: false }, b'\r') => Chunks::Extension { size, line, ended: true },
            (Chunks::Extension { size, line, ended: false }, _) if line < CHUNK_LINE_MAX && byte != b'\n' => {
                Chunks::Extension { size, line: line + 1, ended: false }
            }
            (Chunks::DataEnd { ended: false }, b'\r') => Chunks::DataEnd { ended: true },
            (Chunks::DataEnd { ended: true }, b'\n') => {
                found(Piece::ChunkEnd);
                Chunks::Size { size: 0, digits: 0 }
            }
            (Chunks::Trailer { empty: true, ended: true, .. }, b'\n') => {
                found(Piece::End);
                return Ok(Body::Done);
            }
            (Chunks::Trailer { len, ended: true, .. }, b'\n') => Chunks::Trailer { len, empty: true, ended: false },
            (Chunks::Trailer { len, empty, ended: false }, b'\r') => Chunks::Trailer { len, empty, ended: true },
            (Chunks::Trailer { len, ended: false, .. }, _) if len < TRAILER_MAX && byte != b'\n' => {
                Chunks::Trailer { len: len + 1, empty: false, ended: false }
            }
            (
                Chunks::Size { .. }
                | Chunks::Extension { .. }
                | Chunks::Data { .. }
                | Chunks::DataEnd { .. }
                | Chunks::Trailer { .. },
                _,
            ) => return Err(Malformed),
        }))
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn read(framing: Framing, input: &[u8], step: usize) -> Result<(Vec<u8>, usize, bool), Malformed> {
        let mut body = Body::new(framing);
        let mut data = Vec::new();
        let mut used = 0;
        for piece in input.chunks(step) {
            let mut found = |piece: Piece<'_>| {
                if let Piece::Data(bytes) = piece {
                    data.extend_from_slice(bytes);
                }
            };
            let n = body.read(piece, &mut found)?;
            used += n;
            if n < piece.len() {
                break;
            }
        }
        Ok((data, used, body.is_done()))
    }

    #[test]
    fn chunked_bodies() {
        let good: [(&[u8], &[u8]); 6] = [
            (b"0\r\n\r\n", b""),
            (b"5\r\nhello\r\n0\r\n\r\n", b"hello"),
            (b"005;x=\"y\"\r\nhello\r\nA \r\n0123456789\r\n000\r\n\r\n", b"hello0123456789"),
            (b"1\r\nx\r\n0\r\nTrailer: yes\r\nAnother: one\r\n\r\n", b"x"),
            (b"2\r\n\r\n\r\n0\r\n\r\n", b"\r\n"),
            (b"fF\r\n", b""),
        ];
        for (input, want) in good {
            for step in [1, 2, 3, 100] {
                let with_more = [input, b"GET"].concat();
                let (data, used, done) = read(Framing::Chunked, &with_more, step).unwrap();
                if input == b"fF\r\n" {
                    assert!(!done);
                    continue;
                }
                assert_eq!((&data[..], used, done), (want, input.len(), true), "{input:?} by {step}");
            }
        }
        let bad: [&[u8]; 14] = [
            b"\r\n",
            b"x\r\n",
            b"-1\r\n",
            b"+1\r\n",
            b"0x1\r\n",
            b"5\nhello",
            b"5\r\nhelloX",
            b"5\r\nhello\n",
            b"5;\nhello",
            b"5\rhello",
            b"0\r\n\n",
            b"0\r\nA: b\n\r\n",
            b"1000000000000000\r\n",
            b"ffffffffffffffff0\r\n",
        ];
        for input in bad {
            for step in [1, 100] {
                assert_eq!(read(Framing::Chunked, input, step), Err(Malformed), "{input:?}");
            }
        }
    }

    #[test]
    fn chunk_lines_and_trailers_are_bounded() {
        let line = [b"1;".to_vec(), vec![b'x'; 2000]].concat();
        assert_eq!(read(Framing::Chunked, &line, 100), Err(Malformed));
        let trailer = [b"0\r\n".to_vec(), b"a: b\r\n".repeat(3000)].concat();
        assert_eq!(read(Framing::Chunked, &trailer, 100), Err(Malformed));
    }

    #[test]
    fn counted_bodies() {
        assert_eq!(read(Framing::Length(5), b"helloGET", 2), Ok((b"hello".to_vec(), 5, true)));
        assert_eq!(read(Framing::Length(5), b"hell", 9), Ok((b"hell".to_vec(), 4, false)));
        assert_eq!(read(Framing::None, b"GET", 9), Ok((vec![], 0, true)));
        assert_eq!(read(Framing::Length(0), b"GET", 9), Ok((vec![], 0, true)));
        assert_eq!(read(Framing::Length(u64::MAX), b"GET", 9), Ok((b"GET".to_vec(), 3, false)));
    }
}
