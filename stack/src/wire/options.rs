//! TCP options (RFC 9293 3.2, RFC 7323, RFC 2018).

use arrayvec::ArrayVec;

use super::{be16, be32};

/// Largest window scale that means anything (RFC 7323 2.3); larger ones are taken as this.
const WINDOW_SCALE_MAX: u8 = 14;

/// The options of one segment that this stack knows. An option of a wrong length is passed over; of two of a kind the
/// later one counts.
#[derive(Clone, PartialEq, Eq, Debug, Default)]
pub struct TcpOptions {
    /// Maximum segment size, bytes; as sent, 0 and other nonsense included.
    pub mss: Option<u16>,
    /// Window scale, a shift count of at most 14.
    pub window_scale: Option<u8>,
    /// SACK-permitted.
    pub sack_permitted: bool,
    /// Timestamps: TSval, TSecr.
    pub timestamps: Option<(u32, u32)>,
    /// SACK blocks, left and right edge, in the order of the option; as sent, nonsense included.
    pub sack: ArrayVec<(u32, u32), 4>,
}

/// Reads the options of a TCP header (the whole header, from the source port to where the payload starts). Stops at
/// the first byte that cannot be an option.
#[inline]
pub fn tcp_options(header: &[u8]) -> TcpOptions {
    let mut out = TcpOptions::default();
    let mut rest = header.get(20..).unwrap_or(&[]);
    // What nearly every segment of a connection with timestamps carries (RFC 7323 appendix A).
    if let Some(only) = rest.first_chunk::<12>()
        && rest.len() == 12
        && only[..4] == [1, 1, 8, 10]
    {
        return TcpOptions { timestamps: Some((be32(only, 4), be32(only, 8))), ..TcpOptions::default() };
    }
    loop {
        match rest {
            [] | [0, ..] => return out,
            [1, tail @ ..] => rest = tail,
            [kind, len, ..] => {
                let Some((option, tail)) = rest.split_at_checked(usize::from(*len)) else { return out };
                // A length of 0 or 1 would not get on.
                let Some(value) = option.get(2..) else { return out };
                out.take(*kind, value);
                rest = tail;
            }
            [_] => return out,
        }
    }
}

impl TcpOptions {
    fn take(&mut self, kind: u8, value: &[u8]) {
        match (kind, value.len()) {
            (2, 2) => self.mss = Some(be16(value, 0)),
            (3, 1) => self.window_scale = Some(value[0].min(WINDOW_SCALE_MAX)),
            (4, 0) => self.sack_permitted = true,
            (5, 8 | 16 | 24 | 32) => {
                self.sack = value.chunks_exact(8).take(4).map(|b| (be32(b, 0), be32(b, 4))).collect();
            }
            (8, 8) => self.timestamps = Some((be32(value, 0), be32(value, 4))),
            _ => {}
        }
    }
}
