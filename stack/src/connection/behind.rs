//! smoltcp behind the gate: when it hears of a connection, and of what.
//!
//! Most text goes to the application in the frame it came in ([`text`](super::text)), and what either end's FIN means the
//! gate knows by itself. So smoltcp hears of a connection only when text is left that it has to keep: a request that is
//! read whole, on a connection that is new or was parked, costs no socket set-up, and its end no farewell. What smoltcp has
//! not been told is caught up on then: its count of the stream begins where it is told ([`Receive::machine_seq`]).
//!
//! [`Receive::machine_seq`]: super::receive::Receive::machine_seq

use super::{Connection, Env, World};
use crate::Queue;
use crate::machine::{Handshake, Reply};
use crate::wire::{self, Flags};

impl<S> Connection<S> {
    /// Sees that smoltcp knows of the connection, and returns the acknowledgement number that it expects. `None`: it refuses,
    /// which ends the connection.
    pub(super) fn open_machine(&mut self, world: &mut World) -> Option<u32> {
        if self.tx.machine_ack.is_none() {
            self.open_now(world);
        }
        self.tx.machine_ack
    }

    #[cold]
    fn open_now(&mut self, world: &mut World) {
        let handshake = Handshake { key: &self.key, irs: self.rx.machine_seq().wrapping_sub(1) };
        self.tx.machine_ack = world.machine.open(&mut self.unit, &handshake).ok();
        self.wishes.abort |= self.tx.machine_ack.is_none();
        if self.tx.fin_sent {
            self.tell_machine_of_fin();
        }
        if self.tx.fin_acked {
            self.tell_machine_fin_acked(world);
        }
    }

    /// Our FIN has gone out.
    pub(super) fn tell_machine_of_fin(&mut self) {
        if self.tx.machine_ack.is_some() {
            self.unit.close();
        }
    }

    /// The acknowledgement of our FIN is made up with the exact sequence number smoltcp waits for: the peer's own segment
    /// may be one that smoltcp would not look at.
    pub(super) fn tell_machine_fin_acked(&mut self, world: &mut World) {
        let Some(ack) = &mut self.tx.machine_ack else { return };
        *ack = ack.wrapping_add(1);
        let mut packet = [0u8; 128];
        let (seq, ack) = (self.rx.machine_seq(), Some(*ack));
        let n = wire::synthetic(&self.key, seq, ack, Flags::ACK, u16::MAX, &[], &mut packet);
        world.machine.feed(&mut self.unit, &packet[..n]);
    }

    /// The peer's FIN is what comes next.
    pub(super) fn feed_fin(&mut self, world: &mut World) {
        let Some(ack) = self.tx.machine_ack else {
            // Nothing waits to be read in front of it, and nothing comes behind it.
            self.rx.fed += 1;
            return;
        };
        let mut packet = [0u8; 128];
        let seq = self.rx.machine_seq();
        let n = wire::synthetic(&self.key, seq, Some(ack), Flags::FIN, u16::MAX, &[], &mut packet);
        let reply = world.machine.feed(&mut self.unit, &packet[..n]);
        self.after_feed(world, reply);
    }

    /// Has smoltcp say how much it would take.
    pub(super) fn ask_for_edge<Q: Queue>(&mut self, env: &mut Env<'_, Q>) {
        // What it has not heard of it has room for.
        if self.tx.machine_ack.is_some()
            && let Some(reply) = env.world.machine.ask(&mut self.unit)
        {
            self.rx.on_reply(&reply);
        }
    }

    /// Notes how much smoltcp has taken.
    #[inline]
    pub(super) fn after_feed(&mut self, world: &mut World, reply: Option<Reply>) {
        let text = self.rx.consumed + self.unit.unread() as u64;
        let fin = self.rx.finished && self.unit.peer_finished();
        world.counters.rx_payload_bytes += text.saturating_sub(self.rx.fed);
        self.wishes.ready |= text > self.rx.fed;
        self.rx.fed = text + u64::from(fin);
        if let Some(reply) = reply {
            self.rx.on_reply(&reply);
        }
    }
}
