//! Parameter problems: what is said of an IPv6 packet that cannot be read (RFC 4443 3.4, RFC 8200 4).

use super::Responder;
use crate::counters::Counters;
use crate::time::Instant;
use crate::wire::parsed::{DropReason, Problem};
use crate::wire::{ETHERTYPE_IPV6, LinkView, PROTO_ICMP6, checksum, ip};

const PARAMETER_PROBLEM: u8 = 4;
/// Longest error, bytes of IP packet: what every link carries (RFC 4443 2.4 c).
const LEN_MAX: usize = 1280;

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
        if !self.problems.take(now) {
            counters.icmp_limited += 1;
            return Ok(None);
        }
        let packet = frame.get(usize::from(problem.ip_at)..problem.end as usize).unwrap_or(&[]);
        let len = self.write_problem(packet, link, problem, reply);
        counters.icmp_problems_sent += u64::from(len.is_some());
        Ok(len)
    }

    /// `None` if `reply` is too short even for the headers.
    fn write_problem(&self, packet: &[u8], link: &LinkView, problem: &Problem, reply: &mut [u8]) -> Option<usize> {
        let at = self.header_for(link).write(reply, ETHERTYPE_IPV6)?;
        let room = reply.len().saturating_sub(at).min(LEN_MAX).checked_sub(40 + 8)?;
        let quote = packet.get(..room).unwrap_or(packet);
        let (src, dst, len) = (&problem.local, &problem.peer, 8 + quote.len());
        let (h, rest) = reply.get_mut(at..)?.split_first_chunk_mut::<40>()?;
        *h = ip::v6_header(src, dst, PROTO_ICMP6, ip::HOP_LIMIT, len);
        let message = rest.get_mut(..len)?;
        message[..4].copy_from_slice(&[PARAMETER_PROBLEM, problem.code, 0, 0]);
        message[4..8].copy_from_slice(&u32::from(problem.pointer).to_be_bytes());
        message[8..].copy_from_slice(quote);
        let sum = u64::from(checksum::icmp6_pseudo(src, dst, len)) + u64::from(checksum::data(message));
        message[2..4].copy_from_slice(&(!checksum::fold(sum)).to_be_bytes());
        Some(at + 40 + len)
    }
}
