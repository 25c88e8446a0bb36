//! ICMP errors of ours: what is said of an IPv6 packet that cannot be read (RFC 4443 3.4, RFC 8200 4), and of one whose
//! parts did not all come in time (RFC 792, RFC 4443 3.3).

use super::Responder;
use crate::counters::Counters;
use crate::time::Instant;
use crate::wire::parsed::{DropReason, Fragment, Problem};
use crate::wire::{
    ETHERTYPE_IPV4, ETHERTYPE_IPV6, HEADERS_MAX, LinkView, PROTO_ICMP, PROTO_ICMP6, be16, checksum, ip, whole_headers,
    write_fragment,
};

const PARAMETER_PROBLEM_V6: u8 = 4;
const TIME_EXCEEDED_V4: u8 = 11;
const TIME_EXCEEDED_V6: u8 = 3;
/// Code of either time exceeded: fragment reassembly.
const REASSEMBLY: u8 = 1;
/// Longest error, bytes of IP packet: what every link carries (RFC 1812 4.3.2.3, RFC 4443 2.4 c).
const LEN_MAX_V4: usize = 576;
const LEN_MAX_V6: usize = 1280;

/// An error about a packet that `peer` sent to `local`.
struct Complaint<'a> {
    local: &'a [u8; 16],
    peer: &'a [u8; 16],
    kind: u8,
    code: u8,
    word: u32,
    packet: &'a [u8],
}

impl Responder {
    pub(super) fn tell_problem(
        &mut self,
        now: Instant,
        frame: &[u8],
        link: &LinkView,
        problem: &Problem,
        reply: &mut [u8],
        counters: &mut Counters,
    ) -> Result<Option<usize>, DropReason> {
        self.admit_to(link, &problem.local)?;
        if problem.silent || self.is_local(&problem.peer) {
            return Err(problem.reason);
        }
        problem.reason.count(counters);
        let complaint = Complaint {
            local: &problem.local,
            peer: &problem.peer,
            kind: PARAMETER_PROBLEM_V6,
            code: problem.code,
            word: u32::from(problem.pointer),
            packet: frame.get(usize::from(problem.ip_at)..problem.end as usize).unwrap_or(&[]),
        };
        Ok(self.complain(now, link, &complaint, reply, counters))
    }

    /// Writes into `reply` that the rest of a packet did not come, of which `first` is the first part and `content` its
    /// bytes; returns the length of the frame to send, if any.
    pub fn tell_late(
        &mut self,
        now: Instant,
        link: &LinkView,
        first: &Fragment,
        content: &[u8],
        reply: &mut [u8],
        counters: &mut Counters,
    ) -> Option<usize> {
        // The part as it came, as far as it is quoted: its header is made again.
        const QUOTED: usize = LEN_MAX_V6;
        let mut whole = [0; HEADERS_MAX + QUOTED + 8];
        let mut part = [0; HEADERS_MAX + 8 + QUOTED];
        let len = content.len().min(QUOTED) & !7;
        whole.get_mut(HEADERS_MAX..HEADERS_MAX + len)?.copy_from_slice(content.get(..len)?);
        // Eight bytes more than are quoted, so that more follows.
        let begin = whole_headers(link, first, len + 8, &mut whole);
        let frame = whole.get(begin..HEADERS_MAX + len + 8)?;
        let l2_len = usize::from(link.l2_len);
        let (end, _) = write_fragment(frame, l2_len, 0, len, first.id, &mut part)?;
        let v4 = ip::is_v4(&first.peer);
        // What is not quoted counts in the header's length.
        let h = part.get_mut(l2_len..l2_len + 20)?;
        let (length_at, header_len) = if v4 { (2, 20) } else { (4, 8) };
        let (old, new) = (be16(h, length_at), (header_len + content.len()) as u16);
        h[length_at..length_at + 2].copy_from_slice(&new.to_be_bytes());
        if v4 {
            let sum = checksum::patch16(be16(h, 10), old, new);
            h[10..12].copy_from_slice(&sum.to_be_bytes());
        }
        let complaint = Complaint {
            local: &first.local,
            peer: &first.peer,
            kind: if v4 { TIME_EXCEEDED_V4 } else { TIME_EXCEEDED_V6 },
            code: REASSEMBLY,
            word: 0,
            packet: part.get(l2_len..end)?,
        };
        self.complain(now, link, &complaint, reply, counters)
    }

    fn complain(
        &mut self,
        now: Instant,
        link: &LinkView,
        complaint: &Complaint<'_>,
        reply: &mut [u8],
        counters: &mut Counters,
    ) -> Option<usize> {
        if self.is_broadcast(complaint.peer) {
            return None;
        }
        if !self.errors.take(now) {
            counters.icmp_limited += 1;
            return None;
        }
        let len = self.write_complaint(link, complaint, reply)?;
        counters.icmp_errors_sent += 1;
        Some(len)
    }

    /// `None` if `reply` is too short even for the headers.
    fn write_complaint(&self, link: &LinkView, complaint: &Complaint<'_>, reply: &mut [u8]) -> Option<usize> {
        let Complaint { local, peer, kind, code, word, packet } = *complaint;
        let v4 = ip::unmapped(local).zip(ip::unmapped(peer));
        let (ethertype, header_len, len_max) = match v4 {
            Some(_) => (ETHERTYPE_IPV4, 20, LEN_MAX_V4),
            None => (ETHERTYPE_IPV6, 40, LEN_MAX_V6),
        };
        let at = self.header_for(link).write(reply, ethertype)?;
        let room = reply.len().saturating_sub(at).min(len_max).checked_sub(header_len + 8)?;
        let quote = packet.get(..room).unwrap_or(packet);
        let len = 8 + quote.len();
        let (header, rest) = reply.get_mut(at..)?.split_at_mut_checked(header_len)?;
        let pseudo = match v4 {
            Some((local, peer)) => {
                header.copy_from_slice(&ip::v4_header(local, peer, PROTO_ICMP, len));
                0
            }
            None => {
                header.copy_from_slice(&ip::v6_header(local, peer, PROTO_ICMP6, ip::HOP_LIMIT, len));
                checksum::icmp6_pseudo(local, peer, len)
            }
        };
        let message = rest.get_mut(..len)?;
        message[..4].copy_from_slice(&[kind, code, 0, 0]);
        message[4..8].copy_from_slice(&word.to_be_bytes());
        message[8..].copy_from_slice(quote);
        let sum = u64::from(pseudo) + u64::from(checksum::data(message));
        message[2..4].copy_from_slice(&(!checksum::fold(sum)).to_be_bytes());
        Some(at + header_len + len)
    }
}
