//! Preconditions and ranges (RFC 9110 13 and 14): which part of a file a request is answered with.

use super::date::parse_http_date;
use super::parse::{Head, Method};
use super::site::File;

/// What of a file is sent.
#[derive(Clone, Copy, PartialEq, Eq, Debug)]
pub(crate) enum Part {
    /// 200 with the body.
    Whole,
    /// 200 as to GET, without the body (HEAD).
    HeadOnly,
    /// 206: from the first to before the second, in bytes.
    Range(usize, usize),
    /// 304.
    NotModified,
    /// 412.
    PreconditionFailed,
    /// 416.
    Unsatisfiable,
}

/// Judges the preconditions in the order of RFC 9110 13.2.2.
pub(crate) fn choose(head: &Head<'_>, file: &File) -> Part {
    if let Some(list) = head.if_match {
        if !lists(list, file.etag(), false) {
            return Part::PreconditionFailed;
        }
    } else if let (Some(since), Some(modified)) = (head.if_unmodified_since.and_then(parse_http_date), file.modified())
        && modified > since
    {
        return Part::PreconditionFailed;
    }
    if let Some(list) = head.if_none_match {
        if lists(list, file.etag(), true) {
            return Part::NotModified;
        }
    } else if let (Some(since), Some(modified)) = (head.if_modified_since.and_then(parse_http_date), file.modified())
        && modified <= since
    {
        return Part::NotModified;
    }
    if head.method != Some(Method::Get) {
        return Part::HeadOnly;
    }
    match head.range {
        Some(range) if head.if_range.is_none_or(|value| is_current(value, file)) => select(range, file.len()),
        Some(_) | None => Part::Whole,
    }
}

/// Whether `list` (`*`, or entity tags with commas between) names `etag`, which is strong.
fn lists(list: &[u8], etag: &str, weakly: bool) -> bool {
    let mut rest = list.trim_ascii();
    if rest == b"*" {
        return true;
    }
    loop {
        rest = rest.trim_ascii_start();
        if let Some(after) = rest.strip_prefix(b",") {
            rest = after;
            continue;
        }
        let (weak, quoted) = match rest.strip_prefix(b"W/") {
            Some(after) => (true, after),
            None => (false, rest),
        };
        let Some(opaque) = quoted.strip_prefix(b"\"") else { return false };
        let Some(end) = memchr::memchr(b'"', opaque) else { return false };
        if (weakly || !weak) && quoted[..end + 2] == *etag.as_bytes() {
            return true;
        }
        rest = &opaque[end + 1..];
    }
}

/// Whether an If-Range still holds: a strong tag, or the exact date of the last change.
fn is_current(value: &[u8], file: &File) -> bool {
    let value = value.trim_ascii();
    if value.starts_with(b"\"") || value.starts_with(b"W/") {
        return value == file.etag().as_bytes();
    }
    file.modified().is_some() && parse_http_date(value) == file.modified()
}

/// What `Range: value` selects of `len` bytes. Several ranges, other units and nonsense are ignored, as
/// RFC 9110 14.2 allows.
fn select(value: &[u8], len: usize) -> Part {
    let Some(set) = value.trim_ascii().strip_prefix(b"bytes=") else { return Part::Whole };
    let Some(dash) = memchr::memchr(b'-', set) else { return Part::Whole };
    let (first, last) = (set[..dash].trim_ascii(), set[dash + 1..].trim_ascii());
    match (first, last) {
        (b"", suffix) => match number(suffix) {
            None => Part::Whole,
            Some(0) => Part::Unsatisfiable,
            Some(_) if len == 0 => Part::Unsatisfiable,
            Some(n) => Part::Range(len.saturating_sub(usize::try_from(n).unwrap_or(usize::MAX)), len),
        },
        (first, last) => {
            let Some(start) = number(first) else { return Part::Whole };
            let end = match last {
                b"" => u64::MAX,
                last => match number(last) {
                    Some(end) if end >= start => end,
                    Some(_) | None => return Part::Whole,
                },
            };
            match usize::try_from(start) {
                Ok(start) if start < len => {
                    let end = usize::try_from(end).unwrap_or(usize::MAX).saturating_add(1).min(len);
                    Part::Range(start, end)
                }
                Ok(_) | Err(_) => Part::Unsatisfiable,
            }
        }
    }
}

/// Digits as a number; those too large to count are as good as the largest.
fn number(digits: &[u8]) -> Option<u64> {
    if digits.is_empty() || !digits.iter().all(u8::is_ascii_digit) {
        return None;
    }
    Some(digits.iter().fold(0u64, |n, digit| n.saturating_mul(10).saturating_add(u64::from(digit - b'0'))))
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn ranges() {
        use Part::{Range, Unsatisfiable, Whole};
        let table = [
            ("bytes=0-0", 10, Range(0, 1)),
            ("bytes=0-", 10, Range(0, 10)),
            ("bytes=3-5", 10, Range(3, 6)),
            ("bytes= 3 - 5 ", 10, Range(3, 6)),
            ("bytes=9-", 10, Range(9, 10)),
            ("bytes=9-99999999999999999999999", 10, Range(9, 10)),
            ("bytes=-1", 10, Range(9, 10)),
            ("bytes=-10", 10, Range(0, 10)),
            ("bytes=-11", 10, Range(0, 10)),
            ("bytes=-99999999999999999999999", 10, Range(0, 10)),
            ("bytes=10-", 10, Unsatisfiable),
            ("bytes=10-12", 10, Unsatisfiable),
            ("bytes=99999999999999999999999-", 10, Unsatisfiable),
            ("bytes=-0", 10, Unsatisfiable),
            ("bytes=0-", 0, Unsatisfiable),
            ("bytes=-1", 0, Unsatisfiable),
            ("bytes=0-1,3-4", 10, Whole),
            ("bytes=5-3", 10, Whole),
            ("bytes=", 10, Whole),
            ("bytes=-", 10, Whole),
            ("bytes=a-b", 10, Whole),
            ("bytes=--1", 10, Whole),
            ("bytes=+1-2", 10, Whole),
            ("lines=0-1", 10, Whole),
            ("", 10, Whole),
        ];
        for (value, len, want) in table {
            assert_eq!(select(value.as_bytes(), len), want, "{value} of {len}");
        }
    }

    #[test]
    fn entity_tags() {
        let tag = "\"a,b\"";
        let table = [
            ("*", true, true),
            ("\"a,b\"", true, true),
            ("W/\"a,b\"", true, false),
            ("\"x\", \"a,b\"", true, true),
            (" , ,W/\"x\",W/\"a,b\"", true, false),
            ("\"x\"", false, false),
            ("a,b", false, false),
            ("\"a,b", false, false),
            ("", false, false),
            ("w/\"a,b\"", false, false),
        ];
        for (list, weakly, strongly) in table {
            assert_eq!(lists(list.as_bytes(), tag, true), weakly, "{list} weakly");
            assert_eq!(lists(list.as_bytes(), tag, false), strongly, "{list} strongly");
        }
    }
}
