//! Both ends in virtual time: the stack on one end of a link in memory, the model client on the other.

use crate::apps::{Recorded, recorded};
use crate::host::shard_config;
use crate::recording::Record;
use crate::transcript::{Client, Read};
use anyhow::{Result, bail, ensure};
use khamsin::http::Site;
use khamsin_drivers::sim::client::{ClientId, End, Options, Station};
use khamsin_drivers::sim::{Side, SimConfig, SimQueue, Wire};
use khamsin_stack::shard::Shard;
use khamsin_stack::{Counters, Instant, Queue};
use khamsin_tests::bed::{CLIENT_V4, STACK_V4};
use std::net::{IpAddr, SocketAddr};
use std::time::Duration;

/// The link, both its ends, and the time.
pub(crate) struct World {
    wire: Wire,
    queue: SimQueue,
    shard: Shard<Recorded, SimQueue>,
    app: Recorded,
    station: Station,
    now: Instant,
}

/// Turns at one and the same time after which something spins.
const TURNS_AT_ONCE: u32 = 100_000;

impl World {
    /// A link of 50 us each way without faults; the stack has room for `time_wait` connections in TIME-WAIT.
    pub(crate) fn new(site: Site, time_wait: Option<usize>) -> Result<World> {
        let wire = Wire::new(SimConfig { latency_us: 50, ..SimConfig::default() });
        let queue = wire.queue(Side::Left);
        let mut config = shard_config(STACK_V4.parse()?);
        config.limits.time_wait = time_wait.unwrap_or(config.limits.time_wait);
        let shard = Shard::new(config, queue.caps());
        let station = Station::new(wire.end(Side::Right), [CLIENT_V4.parse::<IpAddr>()?]);
        Ok(World { wire, queue, shard, app: recorded(site), station, now: Instant::from_millis(1) })
    }

    /// Lets time run until `done`, at most for `time`; says whether it was done.
    fn run(&mut self, time: Duration, mut done: impl FnMut(&mut World) -> bool) -> Result<bool> {
        let until = self.now + time;
        let mut turns = 0;
        loop {
            self.wire.advance(self.now);
            self.station.turn(self.now);
            let turn = self.shard.turn(self.now, &mut self.queue, &mut self.app);
            if done(self) {
                return Ok(true);
            }
            let arrived = self.wire.has_arrived(Side::Left) || self.wire.has_arrived(Side::Right);
            let next = [self.wire.next_arrival(), self.station.deadline(), turn.deadline].into_iter().flatten().min();
            if turn.busy || arrived || next.is_some_and(|at| at <= self.now) {
                turns += 1;
                ensure!(turns < TURNS_AT_ONCE, "something spins at {:?}", self.now);
                continue;
            }
            turns = 0;
            self.now = next.map_or(until, |at| at.min(until));
            if self.now == until {
                return Ok(false);
            }
        }
    }

    /// A connection to `port`, its handshake done.
    pub(crate) fn connect(&mut self, port: u16, window: Option<usize>) -> Result<SimClient<'_>> {
        let server = SocketAddr::new(STACK_V4.parse()?, port);
        let options = Options { window: window.unwrap_or(65_535), ..Options::default() };
        let id = self.station.connect(server, options);
        if !self.run(Duration::from_secs(5), |w| w.station.client(id).is_open())? {
            bail!("no connection to {server}: {:?}", self.station.client(id).end());
        }
        Ok(SimClient { world: self, id })
    }

    /// Waits until the application has been told the end of `count` connections.
    pub(crate) fn await_closed(&mut self, count: usize) -> Result<()> {
        ensure!(self.run(Duration::from_secs(10), |w| w.app.closed() >= count)?, "`closed` was not called");
        ensure!(self.station.problems().is_empty(), "on the wire: {:?}", self.station.problems());
        Ok(())
    }

    /// What the stack has counted.
    pub(crate) fn counters(&self) -> &Counters {
        self.shard.counters()
    }

    /// What the application saw.
    pub(crate) fn into_records(self) -> Vec<Record> {
        self.app.into_records()
    }
}

/// The model client's end of one connection.
pub(crate) struct SimClient<'a> {
    world: &'a mut World,
    id: ClientId,
}

impl SimClient<'_> {
    /// Ends the client's half, if that is still open, as a process does that exits. The server must have done nothing on
    /// this connection that it may not do.
    pub(crate) fn finish(self) -> Result<()> {
        let client = self.world.station.client(self.id);
        if client.end().is_none() {
            client.close();
        }
        ensure!(client.violations().is_empty(), "{:?}", client.violations());
        Ok(())
    }
}

impl Client for SimClient<'_> {
    fn send(&mut self, bytes: &[u8]) -> Result<usize> {
        self.world.station.client(self.id).send(bytes);
        Ok(bytes.len())
    }

    fn receive(&mut self, into: &mut Vec<u8>, most: usize) -> Result<Read> {
        let client = self.world.station.client(self.id);
        let bytes = client.read(most);
        into.extend_from_slice(bytes);
        Ok(match bytes.len() {
            0 if client.end() == Some(End::Reset) => Read::Reset,
            0 if client.finished() => Read::End,
            0 => Read::Nothing,
            n => Read::Bytes(n),
        })
    }

    fn end_sending(&mut self) -> Result<()> {
        self.world.station.client(self.id).close();
        Ok(())
    }

    fn reset(&mut self) -> Result<()> {
        self.world.station.client(self.id).reset();
        Ok(())
    }

    fn pass(&mut self, time: Duration, _: bool, receive: bool) -> Result<()> {
        let id = self.id;
        self.world.run(time, |w| {
            let client = w.station.client(id);
            receive && (client.unread() > 0 || client.finished() || client.end().is_some())
        })?;
        Ok(())
    }
}
