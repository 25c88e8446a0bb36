//! Request targets (RFC 9112 3.2): what was asked for, decoded once.

use percent_encoding::percent_decode;
use std::borrow::Cow;

/// What a request line names.
#[derive(Clone, PartialEq, Eq, Debug)]
pub(crate) enum Target<'a> {
    /// A path on this server.
    Path(Location<'a>),
    /// `*`: the server as a whole.
    Asterisk,
}

/// A path and a query.
#[derive(Clone, PartialEq, Eq, Debug)]
pub(crate) struct Location<'a> {
    /// The path, percent-decoded once. Starts with `/`; holds no NUL and no segment `..`.
    pub(crate) path: Cow<'a, [u8]>,
    /// The path as it was sent.
    pub(crate) raw_path: &'a str,
    /// What follows the first `?`.
    pub(crate) query: Option<&'a str>,
}

impl<'a> Target<'a> {
    /// Reads origin form, absolute form (whose authority says nothing that this server does not know) and `*`; anything
    /// else is malformed.
    pub(crate) fn parse(target: &'a str) -> Result<Self, &'static str> {
        if target == "*" {
            return Ok(Target::Asterisk);
        }
        let rest = if target.starts_with('/') { target } else { strip_authority(target)? };
        // Targets are short: one plain pass over one costs less than setting up any search.
        let end = rest.bytes().position(|byte| byte == b'?').unwrap_or(rest.len());
        let (raw_path, query) = (rest.get(..end).unwrap_or(rest), rest.get(end + 1..));
        let raw_path = if raw_path.is_empty() { "/" } else { raw_path };
        Ok(Target::Path(Location { path: decode_path(raw_path)?, raw_path, query }))
    }
}

/// What follows `http://authority`.
fn strip_authority(target: &str) -> Result<&str, &'static str> {
    const MALFORMED: &str = "The request target must be a path, or a URL that starts with http:// or https://.";
    let (scheme, rest) = target.split_once("://").ok_or(MALFORMED)?;
    if !scheme.eq_ignore_ascii_case("http") && !scheme.eq_ignore_ascii_case("https") {
        return Err(MALFORMED);
    }
    let end = rest.find(['/', '?']).unwrap_or(rest.len());
    let (authority, rest) = rest.split_at(end);
    if authority.is_empty() || authority.contains('@') {
        return Err("The request target names no host, or a user, which http URLs must not (RFC 9110 4.2.4).");
    }
    Ok(rest)
}

fn decode_path(raw: &str) -> Result<Cow<'_, [u8]>, &'static str> {
    let bytes = raw.as_bytes();
    let path = if bytes.iter().any(|byte| matches!(byte, b'%' | b'#' | 0)) {
        Cow::Owned(unescape(bytes)?)
    } else {
        Cow::Borrowed(bytes)
    };
    let (mut dots, mut suspect) = (0, false);
    for &byte in &*path {
        dots = if byte == b'.' { dots + 1 } else { 0 };
        suspect |= dots == 2;
    }
    if suspect && path.split(|&byte| byte == b'/').any(|segment| segment == b"..") {
        return Err("The request target must not climb with `..`.");
    }
    Ok(path)
}

fn unescape(bytes: &[u8]) -> Result<Vec<u8>, &'static str> {
    for (at, &byte) in bytes.iter().enumerate() {
        if byte == b'#' {
            return Err("The request target must not have a fragment.");
        }
        if byte == b'%' && !bytes.get(at + 1..at + 3).is_some_and(|hex| hex.iter().all(u8::is_ascii_hexdigit)) {
            return Err("A % in the request target must be followed by two hexadecimal digits.");
        }
    }
    let path: Vec<u8> = percent_decode(bytes).collect();
    if path.contains(&0) {
        return Err("The request target must not hold a NUL.");
    }
    Ok(path)
}

/// The parameters of a query or of a form (application/x-www-form-urlencoded): `+` is a space, escapes are decoded,
/// what is not UTF-8 becomes U+FFFD. A name without `=` has an empty value.
pub(crate) fn parameters(query: &str) -> impl Iterator<Item = (String, String)> + '_ {
    query.split('&').filter(|pair| !pair.is_empty()).map(|pair| {
        let (name, value) = pair.split_once('=').unwrap_or((pair, ""));
        (decode_parameter(name), decode_parameter(value))
    })
}

fn decode_parameter(text: &str) -> String {
    let spaced: Vec<u8> = text.bytes().map(|byte| if byte == b'+' { b' ' } else { byte }).collect();
    percent_decode(&spaced).decode_utf8_lossy().into_owned()
}

#[cfg(test)]
mod tests {
    use super::*;

    fn path(target: &str) -> Option<(Vec<u8>, Option<&str>)> {
        match Target::parse(target) {
            Ok(Target::Path(location)) => Some((location.path.into_owned(), location.query)),
            Ok(Target::Asterisk) | Err(_) => None,
        }
    }

    #[test]
    fn targets() {
        type Want = Option<(&'static str, Option<&'static str>)>;
        let table: [(&str, Want); 22] = [
            ("/", Some(("/", None))),
            ("/a/b?c=d?e", Some(("/a/b", Some("c=d?e")))),
            ("/a%20b", Some(("/a b", None))),
            ("/a+b", Some(("/a+b", None))),
            ("/%2e/x", Some(("/./x", None))),
            ("/a%252fb", Some(("/a%2fb", None))),
            ("/...", Some(("/...", None))),
            ("/a\\..\\b", Some(("/a\\..\\b", None))),
            ("http://host", Some(("/", None))),
            ("HTTP://host:80/x?y", Some(("/x", Some("y")))),
            ("http://host?y", Some(("/", Some("y")))),
            ("*", None),
            ("", None),
            ("host:80", None),
            ("ftp://host/", None),
            ("http:///x", None),
            ("http://user@host/", None),
            ("/../etc/passwd", None),
            ("/a/%2e%2E/b", None),
            ("/a%2f..", None),
            ("/%00", None),
            ("/%4", None),
        ];
        for (target, want) in table {
            assert_eq!(path(target), want.map(|(p, q)| (p.as_bytes().to_vec(), q)), "{target}");
        }
        assert_eq!(Target::parse("*"), Ok(Target::Asterisk));
    }

    #[test]
    fn query_parameters() {
        let got: Vec<_> = parameters("a=1&b=x+y%26&&c&=v&a=2&%ff=%zz").collect();
        let want = [("a", "1"), ("b", "x y&"), ("c", ""), ("", "v"), ("a", "2"), ("\u{fffd}", "%zz")]
            .map(|(n, v)| (n.to_string(), v.to_string()));
        assert_eq!(got, want);
    }
}
