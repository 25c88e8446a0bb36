//! Worlds in which connections are parked.

use super::*;

pub fn parks() -> Limits {
    Limits { park_after_us: Some(1_000_000), ..small() }
}

/// A world whose application lets its sessions be parked.
pub fn world(limits: Limits) -> World {
    let mut w = World::with(limits, MemQueue::default());
    w.app.parks = true;
    w
}

pub fn established() -> World {
    let mut w = world(parks());
    w.establish();
    w
}

#[track_caller]
pub fn settle(w: &mut World, parked: usize) {
    w.pass(1_500);
    w.silence();
    assert_eq!((w.shard.parked(), w.shard.live()), (parked, parked));
}

pub fn parked() -> World {
    let mut w = established();
    settle(&mut w, 1);
    w
}
