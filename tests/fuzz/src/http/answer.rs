//! Answers as a strict client reads them.

use std::str;

/// One answer.
#[derive(Clone, PartialEq, Eq, Debug)]
pub struct Answer {
    pub status: u16,
    pub body: Vec<u8>,
    /// It says that the connection ends.
    pub closes: bool,
    /// All of it is there.
    pub whole: bool,
}

/// Reads the next answer from `output`, to a request whose method was HEAD or not, and panics where a client would give up.
pub fn read<'o>(output: &'o [u8], to_head: bool, context: &str) -> (Answer, &'o [u8]) {
    let end = memchr::memmem::find(output, b"\r\n\r\n").unwrap_or_else(|| panic!("{context}: a head without an end"));
    let head = str::from_utf8(&output[..end]).unwrap_or_else(|_| panic!("{context}: a head that is no text"));
    let mut rest = &output[end + 4..];
    let mut lines = head.split("\r\n");
    let status = status(lines.next().unwrap_or_default(), context);
    let (mut length, mut chunked, mut closes, mut dated) = (None, false, false, false);
    for line in lines {
        let (name, value) = line.split_once(": ").unwrap_or_else(|| panic!("{context}: no field: {line:?}"));
        assert!(name.bytes().all(|byte| byte.is_ascii_alphanumeric() || byte == b'-'), "{context}: {line:?}");
        assert!(!value.bytes().any(|byte| (byte < b' ' && byte != b'\t') || byte == 0x7f), "{context}: {line:?}");
        match &name.to_ascii_lowercase()[..] {
            "content-length" => {
                let number: usize = value.parse().unwrap_or_else(|_| panic!("{context}: {line:?}"));
                assert!(length.replace(number).is_none(), "{context}: two lengths");
            }
            "transfer-encoding" => chunked = true,
            "connection" => closes = value == "close",
            "date" => dated = true,
            _ => {}
        }
    }
    assert!(!(chunked && length.is_some()), "{context}: two ways to find the end of the body");
    assert!(dated || status == 100, "{context}: an answer without a date");
    let bodiless = to_head || status < 200 || status == 204 || status == 304;
    let mut answer = Answer { status, body: Vec::new(), closes, whole: true };
    if bodiless {
        return (answer, rest);
    }
    if chunked {
        (answer.whole, rest) = chunks(rest, &mut answer.body, context);
    } else if let Some(length) = length {
        answer.whole = length <= rest.len();
        let (body, behind) = rest.split_at(length.min(rest.len()));
        (answer.body, rest) = (body.to_vec(), behind);
    } else {
        assert!(closes, "{context}: nothing says where the body ends");
        (answer.body, rest) = (rest.to_vec(), &[]);
    }
    (answer, rest)
}

fn status(line: &str, context: &str) -> u16 {
    let code = line.strip_prefix("HTTP/1.1 ").and_then(|rest| rest.get(..3)).and_then(|code| code.parse().ok());
    let code: u16 = code.unwrap_or_else(|| panic!("{context}: no status line: {line:?}"));
    assert!(code == 100 || (200..600).contains(&code), "{context}: {line:?}");
    code
}

/// Reads chunks into `body`; says whether the last one came, and what follows.
fn chunks<'o>(mut rest: &'o [u8], body: &mut Vec<u8>, context: &str) -> (bool, &'o [u8]) {
    loop {
        let Some(end) = memchr::memmem::find(rest, b"\r\n") else { return (false, &[]) };
        let size = str::from_utf8(&rest[..end]).ok().and_then(|size| usize::from_str_radix(size, 16).ok());
        let size = size.unwrap_or_else(|| panic!("{context}: no chunk size: {:?}", &rest[..end]));
        rest = &rest[end + 2..];
        if rest.len() < size.saturating_add(2) {
            body.extend_from_slice(&rest[..size.min(rest.len())]);
            return (false, &[]);
        }
        body.extend_from_slice(&rest[..size]);
        assert_eq!(&rest[size..size + 2], b"\r\n", "{context}: a chunk without an end");
        rest = &rest[size + 2..];
        if size == 0 {
            return (true, rest);
        }
    }
}
