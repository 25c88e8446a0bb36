//! One rtnetlink socket: ask for one thing, or for all of a kind (rtnetlink(7)).

use super::{Error, NAME_MAX};
use netlink_packet_core::{
    NLM_F_ACK, NLM_F_DUMP, NLM_F_DUMP_INTR, NLM_F_REQUEST, NetlinkHeader, NetlinkMessage, NetlinkPayload,
};
use netlink_packet_route::RouteNetlinkMessage;
use netlink_sys::{Socket, SocketAddr, protocols::NETLINK_ROUTE};
use std::io;

/// A dump that changed under our hands is read again this often before the last reading is taken.
const DUMP_TRIES: usize = 4;

/// The kernel takes any byte but these (`dev_valid_name`).
pub(crate) fn check_name(name: &str) -> Result<(), Error> {
    let fits = !name.is_empty() && name.len() <= NAME_MAX && name != "." && name != "..";
    if fits && !name.bytes().any(|b| b == b'/' || b == b':' || b == 0 || b.is_ascii_whitespace()) {
        return Ok(());
    }
    Err(Error::BadName { name: name.to_owned() })
}

pub(super) struct Netlink {
    socket: Socket,
    sequence: u32,
}

impl Netlink {
    pub(super) fn open() -> Result<Self, Error> {
        let open = || -> io::Result<Socket> {
            let mut socket = Socket::new(NETLINK_ROUTE)?;
            socket.bind_auto()?;
            socket.connect(&SocketAddr::new(0, 0))?;
            Ok(socket)
        };
        Ok(Netlink { socket: open().map_err(Error::Socket)?, sequence: 0 })
    }

    fn send(&mut self, message: RouteNetlinkMessage, flags: u16, wanted: &str) -> Result<(), Error> {
        self.sequence += 1;
        let mut header = NetlinkHeader::default();
        header.flags = flags;
        header.sequence_number = self.sequence;
        let mut message = NetlinkMessage::new(header, NetlinkPayload::from(message));
        message.finalize();
        let mut bytes = vec![0; message.buffer_len()];
        message.serialize(&mut bytes);
        self.socket.send(&bytes, 0).map_err(|e| Error::from_kernel(wanted, e))?;
        Ok(())
    }

    /// Asks the kernel to do or to tell one thing; returns what it told, if anything, before its acknowledgement.
    pub(super) fn request(
        &mut self,
        message: RouteNetlinkMessage,
        flags: u16,
        wanted: &str,
    ) -> Result<Option<RouteNetlinkMessage>, Error> {
        self.send(message, NLM_F_REQUEST | NLM_F_ACK | flags, wanted)?;
        let mut answer = None;
        self.receive(wanted, &mut |message, _| answer = Some(message))?;
        Ok(answer)
    }

    /// Asks for one thing.
    pub(super) fn ask(
        &mut self,
        message: RouteNetlinkMessage,
        wanted: &str,
    ) -> Result<Option<RouteNetlinkMessage>, Error> {
        match self.request(message, 0, wanted) {
            Err(Error::Refused { source, .. }) if source.raw_os_error() == Some(libc::ENODEV) => Ok(None),
            other => other,
        }
    }

    /// Asks for all of a kind and shows each to `each`.
    pub(super) fn dump(
        &mut self,
        message: RouteNetlinkMessage,
        wanted: &str,
        each: &mut dyn FnMut(RouteNetlinkMessage),
    ) -> Result<(), Error> {
        let mut found = Vec::new();
        for _ in 0..DUMP_TRIES {
            found.clear();
            let mut interrupted = false;
            self.send(message.clone(), NLM_F_REQUEST | NLM_F_DUMP, wanted)?;
            self.receive(wanted, &mut |message, flags| {
                interrupted |= flags & NLM_F_DUMP_INTR != 0;
                found.push(message);
            })?;
            if !interrupted {
                break;
            }
        }
        found.into_iter().for_each(each);
        Ok(())
    }

    /// Reads until the acknowledgement or the end of the dump of the latest request.
    fn receive(&mut self, wanted: &str, each: &mut dyn FnMut(RouteNetlinkMessage, u16)) -> Result<(), Error> {
        loop {
            let (bytes, _) = self.socket.recv_from_full().map_err(|e| Error::from_kernel(wanted, e))?;
            for message in messages(&bytes) {
                let message = message.map_err(|reason| Error::Garbled { wanted: wanted.to_owned(), reason })?;
                if message.header.sequence_number != self.sequence {
                    continue;
                }
                match message.payload {
                    NetlinkPayload::Done(done) => return outcome(wanted, done.code),
                    NetlinkPayload::Error(error) => return outcome(wanted, error.raw_code()),
                    NetlinkPayload::InnerMessage(inner) => each(inner, message.header.flags),
                    _ => {}
                }
            }
        }
    }
}

fn outcome(wanted: &str, code: i32) -> Result<(), Error> {
    match code {
        0 => Ok(()),
        code => Err(Error::from_kernel(wanted, io::Error::from_raw_os_error(code.saturating_abs()))),
    }
}

/// The messages of one datagram. Stops at the first that cannot be read: nothing says where the next would start.
pub(super) fn messages(bytes: &[u8]) -> impl Iterator<Item = Result<NetlinkMessage<RouteNetlinkMessage>, String>> + '_ {
    let mut rest = bytes;
    core::iter::from_fn(move || {
        if rest.is_empty() {
            return None;
        }
        let message = NetlinkMessage::<RouteNetlinkMessage>::deserialize(rest).map_err(|e| e.to_string());
        let len = message.as_ref().map_or(0, |m| m.header.length as usize).next_multiple_of(4);
        rest = if len == 0 { &[] } else { rest.get(len..).unwrap_or_default() };
        Some(message)
    })
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn names_the_kernel_would_refuse_are_refused_here() {
        for bad in ["", ".", "..", "a/b", "a b", "a:1", "sixteen-bytes-xx", "nul\0"] {
            assert!(matches!(check_name(bad), Err(Error::BadName { .. })), "{bad:?}");
        }
        for good in ["lo", "eth0.100", "fifteen-bytes-x", "k@h"] {
            assert!(check_name(good).is_ok(), "{good:?}");
        }
    }

    #[test]
    fn cut_and_hostile_datagrams_end() {
        for len in 0..64 {
            assert!(messages(&vec![0xff; len]).count() <= 1);
            assert!(messages(&vec![0; len]).count() <= 1);
        }
    }
}
