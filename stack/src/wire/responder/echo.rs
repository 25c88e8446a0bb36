//! Pings.

use super::Responder;
use crate::counters::Counters;
use crate::time::Instant;
use crate::wire::parsed::{Datagram, DropReason};
use crate::wire::{ETHERTYPE_IPV4, ETHERTYPE_IPV6, LinkView, PROTO_ICMP, PROTO_ICMP6, be16, checksum, ip};

const ECHO4_REQUEST: u16 = 8 << 8;
const ECHO4_REPLY: u16 = 0;
const ECHO6_REPLY: u16 = 129 << 8;
/// Type, code, checksum, identifier, sequence number.
const ECHO_HEADER_LEN: usize = 8;

impl Responder {
    pub(super) fn answer_echo4(
        &mut self,
        now: Instant,
        frame: &[u8],
        link: &LinkView,
        datagram: &Datagram,
        reply: &mut [u8],
        counters: &mut Counters,
    ) -> Result<Option<usize>, DropReason> {
        if !checksum::verify_icmp(frame, datagram) {
            return Err(DropReason::L4Checksum);
        }
        match datagram.message(frame).first_chunk::<ECHO_HEADER_LEN>() {
            None => Err(DropReason::Malformed),
            Some(h) if be16(h, 0) == ECHO4_REQUEST => {
                self.answer_echo(now, frame, link, datagram, ECHO4_REPLY, reply, counters)
            }
            Some(_) => Err(DropReason::NotOurs),
        }
    }

    /// Turns a verified request of either family into its reply, whose type and code are `kind`.
    #[allow(clippy::too_many_arguments)] // What `answer` was given, and which family.
    pub(super) fn answer_echo(
        &mut self,
        now: Instant,
        frame: &[u8],
        link: &LinkView,
        datagram: &Datagram,
        kind: u16,
        reply: &mut [u8],
        counters: &mut Counters,
    ) -> Result<Option<usize>, DropReason> {
        if datagram.group_dst || !self.is_local(&datagram.local) {
            return Err(DropReason::OtherAddress);
        }
        if self.is_local(&datagram.peer) || self.is_broadcast(&datagram.peer) {
            return Err(DropReason::Martian);
        }
        if !self.echo.take(now) {
            counters.icmp_limited += 1;
            return Ok(None);
        }
        let len = self.write_echo(datagram.message(frame), link, datagram, kind, reply).ok_or(DropReason::NotOurs)?;
        counters.echo_replies += 1;
        Ok(Some(len))
    }

    /// `None` if the reply is longer than `reply`.
    fn write_echo(
        &self,
        message: &[u8],
        link: &LinkView,
        datagram: &Datagram,
        kind: u16,
        reply: &mut [u8],
    ) -> Option<usize> {
        let header = self.header_for(link);
        let (local, peer) = (&datagram.local, &datagram.peer);
        let at = if let (Some(src), Some(dst)) = (ip::unmapped(local), ip::unmapped(peer)) {
            let at = header.write(reply, ETHERTYPE_IPV4)?;
            *reply.get_mut(at..)?.first_chunk_mut()? = ip::v4_header(src, dst, PROTO_ICMP, message.len());
            at + 20
        } else {
            let at = header.write(reply, ETHERTYPE_IPV6)?;
            *reply.get_mut(at..)?.first_chunk_mut()? =
                ip::v6_header(local, peer, PROTO_ICMP6, ip::HOP_LIMIT, message.len());
            at + 40
        };
        let out = reply.get_mut(at..at + message.len())?;
        out.copy_from_slice(message);
        let h = out.first_chunk_mut::<ECHO_HEADER_LEN>()?;
        // The pseudo-header sums to the same with its addresses exchanged: only type and code change.
        let sum = checksum::patch16(be16(h, 2), be16(h, 0), kind);
        // All else zero, the patch leaves zero, which stands for no sum that there can be (RFC 1624 3); the other zero of
        // one's complement always serves.
        let sum = if sum == 0 { 0xffff } else { sum };
        h[..2].copy_from_slice(&kind.to_be_bytes());
        h[2..4].copy_from_slice(&sum.to_be_bytes());
        Some(at + message.len())
    }

    /// The reply to an ICMPv6 echo request.
    pub(super) fn answer_echo6(
        &mut self,
        now: Instant,
        frame: &[u8],
        link: &LinkView,
        datagram: &Datagram,
        reply: &mut [u8],
        counters: &mut Counters,
    ) -> Result<Option<usize>, DropReason> {
        self.answer_echo(now, frame, link, datagram, ECHO6_REPLY, reply, counters)
    }
}
