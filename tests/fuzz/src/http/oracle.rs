//! A second opinion on request bytes: RFC 9112 read slowly, without httparse and without the application's code.
//!
//! It is as strict as the RFC lets a server be where requests are smuggled: what it calls [`Ask::Bad`] must be refused and
//! must end the connection.

/// How a body is delimited.
#[derive(Clone, Copy, PartialEq, Eq, Debug)]
pub enum Framing {
    None,
    Length(u64),
    Chunked,
}

/// One request, or what came in place of one.
#[derive(Clone, PartialEq, Eq, Debug)]
pub enum Ask {
    /// A sound head, and as much of its body as there is.
    Sound { method: Vec<u8>, target: Vec<u8>, framing: Framing, body: Vec<u8>, state: BodyState },
    /// Not a request.
    Bad(&'static str),
}

/// How far a body came.
#[derive(Clone, Copy, PartialEq, Eq, Debug)]
pub enum BodyState {
    Whole,
    Partial,
    Malformed,
}

/// The requests in `input`, up to the first that is bad or whose body is not whole. What is too short to be a head is left
/// out.
pub fn read(mut input: &[u8]) -> Vec<Ask> {
    let mut asks = Vec::new();
    loop {
        // RFC 9112 2.2: empty lines before a request are passed over.
        let blank = input.iter().take_while(|byte| matches!(byte, b'\r' | b'\n')).count();
        input = &input[blank..];
        let Some((lines, rest)) = head(input) else { return asks };
        let (method, target, framing) = match judge(&lines) {
            Ok(sound) => sound,
            Err(why) => {
                asks.push(Ask::Bad(why));
                return asks;
            }
        };
        let (body, state, rest) = take_body(rest, framing);
        asks.push(Ask::Sound { method, target, framing, body, state });
        if state != BodyState::Whole {
            return asks;
        }
        input = rest;
    }
}

/// The lines of a head that is whole, without their ends, and what follows it.
fn head(input: &[u8]) -> Option<(Vec<&[u8]>, &[u8])> {
    let mut lines = Vec::new();
    let mut rest = input;
    loop {
        let end = rest.iter().position(|&byte| byte == b'\n')?;
        let line = &rest[..end];
        let line = line.strip_suffix(b"\r").unwrap_or(line);
        rest = &rest[end + 1..];
        if line.is_empty() {
            return Some((lines, rest));
        }
        lines.push(line);
    }
}

fn is_token(bytes: &[u8]) -> bool {
    !bytes.is_empty() && bytes.iter().all(|byte| byte.is_ascii_alphanumeric() || b"!#$%&'*+-.^_`|~".contains(byte))
}

fn trim(value: &[u8]) -> &[u8] {
    let from = value.iter().position(|byte| !matches!(byte, b' ' | b'\t')).unwrap_or(value.len());
    let to = value.iter().rposition(|byte| !matches!(byte, b' ' | b'\t')).map_or(from, |at| at + 1);
    &value[from..to]
}

type Sound = (Vec<u8>, Vec<u8>, Framing);

fn judge(lines: &[&[u8]]) -> Result<Sound, &'static str> {
    let words: Vec<&[u8]> = lines[0].split(|&byte| byte == b' ').collect();
    let [method, target, version] = words[..] else { return Err("not three words") };
    if !is_token(method) {
        return Err("the method is no token");
    }
    if target.is_empty() || target.iter().any(|&byte| byte < b'!' || byte == 0x7f) {
        return Err("a control byte in the target");
    }
    let old = match version {
        b"HTTP/1.1" => false,
        b"HTTP/1.0" => true,
        _ => return Err("another version"),
    };
    let (mut length, mut codings, mut hosts) = (None, 0, 0);
    for line in &lines[1..] {
        let colon = line.iter().position(|&byte| byte == b':').ok_or("a field without a colon")?;
        let (name, value) = (&line[..colon], trim(&line[colon + 1..]));
        if !is_token(name) {
            return Err("a field name that is no token, or folded");
        }
        if value.iter().any(|&byte| (byte < b' ' && byte != b'\t') || byte == 0x7f) {
            return Err("a control byte in a field");
        }
        match &name.to_ascii_lowercase()[..] {
            b"host" => hosts += 1,
            b"content-length" => {
                let number = decimal(value).ok_or("Content-Length is no number")?;
                if length.replace(number).is_some() {
                    return Err("two Content-Length fields");
                }
            }
            b"transfer-encoding" => {
                codings += 1;
                if !value.eq_ignore_ascii_case(b"chunked") {
                    return Err("another coding than chunked");
                }
            }
            _ => {}
        }
    }
    if hosts > 1 || (hosts == 0 && !old) {
        return Err("not one Host");
    }
    let framing = match (length, codings) {
        (None, 0) => Framing::None,
        (Some(length), 0) => Framing::Length(length),
        (None, 1) if !old => Framing::Chunked,
        _ => return Err("Transfer-Encoding twice, in HTTP/1.0, or beside Content-Length"),
    };
    Ok((method.to_vec(), target.to_vec(), framing))
}

fn decimal(value: &[u8]) -> Option<u64> {
    let text = std::str::from_utf8(value).ok().filter(|text| text.bytes().all(|byte| byte.is_ascii_digit()))?;
    text.parse::<u64>().ok().filter(|&number| number < 1 << 63)
}

fn take_body(rest: &[u8], framing: Framing) -> (Vec<u8>, BodyState, &[u8]) {
    match framing {
        Framing::None => (Vec::new(), BodyState::Whole, rest),
        Framing::Length(length) => match usize::try_from(length).ok().filter(|&length| length <= rest.len()) {
            Some(length) => (rest[..length].to_vec(), BodyState::Whole, &rest[length..]),
            None => (rest.to_vec(), BodyState::Partial, &[]),
        },
        Framing::Chunked => chunks(rest),
    }
}

/// Chunks as RFC 9112 7.1 writes them; every line ends in CR LF.
fn chunks(mut rest: &[u8]) -> (Vec<u8>, BodyState, &[u8]) {
    let mut body = Vec::new();
    loop {
        let Some(end) = rest.iter().position(|&byte| byte == b'\n') else { return (body, BodyState::Partial, &[]) };
        let Some(line) = rest[..end].strip_suffix(b"\r") else { return (body, BodyState::Malformed, &[]) };
        let digits = line.iter().take_while(|byte| byte.is_ascii_hexdigit()).count();
        let behind = line.get(digits);
        let extended = matches!(behind, None | Some(b';' | b' ' | b'\t'));
        // As many digits as the application reads.
        if digits == 0 || digits > 15 || !extended || line.contains(&b'\r') || line.len() - digits > 1024 {
            return (body, BodyState::Malformed, &[]);
        }
        let text = std::str::from_utf8(&line[..digits]).expect("hexadecimal digits are ASCII");
        let size = u64::from_str_radix(text, 16).expect("fifteen digits fit");
        rest = &rest[end + 1..];
        if size == 0 {
            return trailer(body, rest);
        }
        let Some(size) = usize::try_from(size).ok().filter(|&size| size <= rest.len()) else {
            body.extend_from_slice(rest);
            return (body, BodyState::Partial, &[]);
        };
        body.extend_from_slice(&rest[..size]);
        match &rest[size..] {
            [b'\r', b'\n', ..] => rest = &rest[size + 2..],
            [] | [b'\r'] => return (body, BodyState::Partial, &[]),
            _ => return (body, BodyState::Malformed, &[]),
        }
    }
}

/// Fields behind the last chunk, which nobody looks at; only their lines must end as lines do.
fn trailer(body: Vec<u8>, mut rest: &[u8]) -> (Vec<u8>, BodyState, &[u8]) {
    let mut len = 0;
    loop {
        let Some(end) = rest.iter().position(|&byte| byte == b'\n') else { return (body, BodyState::Partial, &[]) };
        let line = rest[..end].strip_suffix(b"\r").filter(|line| !line.contains(&b'\r'));
        let Some(line) = line else { return (body, BodyState::Malformed, &[]) };
        rest = &rest[end + 1..];
        len += line.len();
        if len > 8 * 1024 {
            return (body, BodyState::Malformed, &[]);
        }
        if line.is_empty() {
            return (body, BodyState::Whole, rest);
        }
    }
}
