//! Ends of connections, as a capture hears of them.
#![allow(clippy::unwrap_used)]

#[path = "../examples/memory/mod.rs"]
mod memory;

use khamsin_stack::CloseReason;
use khamsin_stack::limits::Limits;
use khamsin_stack::wire::Flags;
use memory::{Client, Echo, Memory, shard};

#[test]
fn ends_are_remembered_where_somebody_watches() {
    let mut queue = Memory::with_frames(64);
    let (mut shard, mut now) = shard(Limits::with_parking(16), &mut queue);
    let mut life = |watch: bool, client: &mut Client| {
        if watch {
            shard.watch_ends();
        }
        for (flags, text) in [(Flags::SYN, &b""[..]), (Flags::ACK, b"text"), (Flags::RST, b"")] {
            let mut frame = queue.free.pop().unwrap();
            client.send(&mut frame, flags, text);
            queue.rx.push(frame);
            now = now.plus_micros(50);
            shard.turn(now, &mut queue, &mut Echo);
            for frame in queue.tx.drain(..) {
                client.take(&frame);
                queue.free.push(frame);
            }
        }
        shard.ends().map(|(key, reason)| (key.peer_port, reason)).collect::<Vec<_>>()
    };
    assert_eq!(life(false, &mut Client::new(1)), []);
    let ends = life(true, &mut Client::new(2));
    assert_eq!(ends.len(), 1);
    assert_eq!(ends[0].1, CloseReason::PeerReset);
}

/// All that the end of the server takes with it is told, however many they are.
#[test]
fn the_end_of_the_server_tells_of_each() {
    const CLIENTS: usize = 5000;
    let mut queue = Memory::with_frames(64);
    let (mut shard, mut now) = shard(Limits::with_parking(CLIENTS), &mut queue);
    shard.watch_ends();
    for i in 0..CLIENTS {
        let mut client = Client::new(i);
        for flags in [Flags::SYN, Flags::ACK] {
            let mut frame = queue.free.pop().unwrap();
            client.send(&mut frame, flags, b"");
            queue.rx.push(frame);
            now = now.plus_micros(50);
            shard.turn(now, &mut queue, &mut Echo);
            for frame in queue.tx.drain(..) {
                client.take(&frame);
                queue.free.push(frame);
            }
        }
    }
    assert_eq!(shard.live(), CLIENTS);
    shard.abort_all(now, &mut queue, &mut Echo);
    assert_eq!(shard.ends().filter(|(_, reason)| *reason == CloseReason::Drained).count(), CLIENTS);
}

#[test]
fn a_queue_is_told_how_many_ended() {
    let mut queue = Memory::with_frames(64);
    let (mut shard, mut now) = shard(Limits::with_parking(16), &mut queue);
    let mut clients: Vec<Client> = (1..=3).map(Client::new).collect();
    let mut turn = |clients: &mut [Client], flags: Flags| {
        for client in clients.iter_mut() {
            let mut frame = queue.free.pop().unwrap();
            client.send(&mut frame, flags, b"");
            queue.rx.push(frame);
        }
        now = now.plus_micros(50);
        shard.turn(now, &mut queue, &mut Echo);
        for (frame, client) in queue.tx.drain(..).zip(clients) {
            client.take(&frame);
            queue.free.push(frame);
        }
        queue.ended
    };
    turn(&mut clients, Flags::SYN);
    turn(&mut clients, Flags::ACK);
    assert_eq!(turn(&mut clients[1..], Flags::RST), 0, "in the turn that follows");
    assert_eq!(turn(&mut [], Flags::ACK), 2);
    assert_eq!(turn(&mut [], Flags::ACK), 2, "each once");
}
