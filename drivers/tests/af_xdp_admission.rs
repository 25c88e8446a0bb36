//! What an AF_XDP queue lets in while nobody has time: see `af_xdp/admission.rs`.

// Helpers of tests are tests too.
#![allow(clippy::unwrap_used)]

mod af_xdp_support;
#[path = "link_netns/patience.rs"]
mod patience;

use af_xdp_support::*;
use khamsin_drivers::af_xdp::{Config, Mode, XdpQueue, open};
use khamsin_stack::{Frame, Queue};
use patience::eventually;
use std::time::Duration;

/// Longest that the kernel may take for what it does behind our back.
const PATIENCE: Duration = Duration::from_secs(5);

/// Nobody looks at the ring: it takes some SYNs, and what else comes still finds room.
#[test]
fn a_flood_of_syns_leaves_room_for_the_rest() {
    for mode in [Mode::Native, Mode::Generic] {
        let Some(pair) = Pair::new(1) else { return };
        let config = Config { frames_per_queue: 256, ..config(mode) };
        let (mut queues, _attachment) = inside(&pair.server, || open(&config)).unwrap();
        let queue = &mut queues[0];
        let (mut burst, mut syns, mut pings) = (Vec::with_capacity(64), 0, 0);
        let mut take = |queue: &mut XdpQueue| {
            queue.begin();
            queue.rx_burst(&mut burst, 64);
            for frame in burst.drain(..) {
                syns += usize::from(frame.bytes()[14 + 9] == 6);
                pings += usize::from(frame.bytes()[14 + 9] == 1);
                queue.release(frame);
            }
            queue.end();
            (syns, pings)
        };
        // Nothing is left of the start: neighbours, groups.
        std::thread::sleep(Duration::from_millis(50));
        let before = take(queue);
        let _connecting = inside(&pair.client, || {
            run(&format!("ip neigh replace {SERVER} lladdr 02:00:00:00:00:02 dev veth0 nud permanent")).unwrap();
            let connecting: Vec<_> = (0..200).map(|_| connect_without_waiting(SERVER, 80)).collect();
            let pinger = Pinger::new();
            (0..20).for_each(|sequence| pinger.send(SERVER, sequence, 8));
            connecting
        });
        eventually(PATIENCE, || queue.stats().rx_syns_refused >= 176);
        let mut after = before;
        eventually(PATIENCE, || {
            after = take(queue);
            after.1 - before.1 == 20
        });
        let stats = queue.stats();
        assert_eq!((after.0 - before.0, stats.rx_dropped), (24, 0), "{mode:?}: of 64 that can wait: {stats:?}");
    }
}
