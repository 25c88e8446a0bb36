//! The run that callgrind watches.

use super::client::Client;
use super::device::Device;
use super::{Case, Work};
use anyhow::{Context, Result, ensure};
use khamsin::echo::{Echo, EchoConfig};
use khamsin_drivers::sim::{Side, SimConfig, SimEnd, Wire};
use khamsin_stack::limits::Limits;
use khamsin_stack::wire::Flags;
use khamsin_stack::{Addresses, Instant, Listener, Queue, Shard, ShardConfig};
use khamsin_tools::sim::dice::Dice;

/// Payload of a request, bytes.
pub const ECHO: [u8; 64] = [b'x'; 64];
/// Requests that arrive together, of different connections.
const BURST: usize = 32;
/// Time of the wire, microseconds.
const LATENCY_US: u64 = 10;

/// One turn of the server: what is counted.
#[inline(never)]
fn counted_turn(shard: &mut Shard<Echo, Device>, now: Instant, device: &mut Device, echo: &mut Echo) {
    shard.turn(now, device, echo);
}

/// A server with open connections, and the clients at their other ends.
pub struct Bench {
    wire: Wire,
    end: SimEnd,
    device: Device,
    shard: Shard<Echo, Device>,
    echo: Echo,
    clients: Vec<Client>,
    now: Instant,
    frame: [u8; 1600],
    dice: Dice,
}

impl Bench {
    /// Opens the connections of `case`, but for those that are to rest.
    ///
    /// # Errors
    /// When the server does not take one.
    pub fn new(case: &Case) -> Result<Self> {
        let wire = Wire::new(SimConfig { latency_us: LATENCY_US, ..SimConfig::default() });
        let device = Device { queue: wire.queue(Side::Left), counting: false };
        let limits = match case.work {
            Work::Echo => Limits::for_connections(case.connections.max(1024)),
            Work::Connection => Limits::for_connections(case.connections + BURST),
            Work::Rest => Limits::with_parking(case.connections),
        };
        let config = ShardConfig {
            listeners: vec![Listener { app: 0, port: 7 }],
            addresses: Addresses::Own(vec![("198.18.0.1".parse()?, 15), ("fd00::1".parse()?, 64)]),
            gateways: vec![],
            limits,
            secret: [7; 32],
            strays: None,
        };
        let shard = Shard::new(config, device.caps());
        let mut bench = Bench {
            end: wire.end(Side::Right),
            wire,
            device,
            shard,
            echo: Echo::new(EchoConfig::default()),
            clients: Vec::new(),
            now: Instant::from_millis(1000),
            frame: [0; 1600],
            dice: Dice::new(1, "cost"),
        };
        bench.settle();
        if case.work == Work::Rest {
            return Ok(bench);
        }
        for number in 0..case.connections {
            bench.open(Client::new(case, number)).with_context(|| format!("connection {number} did not open"))?;
        }
        ensure!(bench.shard.live() == case.connections, "{} of {} live", bench.shard.live(), case.connections);
        Ok(bench)
    }

    /// Announcements and the like, out of the way.
    fn settle(&mut self) {
        (0..10).for_each(|_| self.rest(1_000_000));
        self.pass(LATENCY_US);
        while self.end.recv().is_some() {}
    }

    fn pass(&mut self, us: u64) {
        self.now = self.now.plus_micros(us);
        self.wire.advance(self.now);
    }

    fn open(&mut self, mut client: Client) -> Result<()> {
        self.say(&mut client, Flags::SYN, &[], true)?;
        self.say(&mut client, Flags::ACK, &[], false)?;
        self.clients.push(client);
        Ok(())
    }

    /// A segment of `client`'s, and the answer if there must be one: the same text. Nothing of it is counted.
    pub(super) fn say(&mut self, client: &mut Client, flags: Flags, text: &[u8], answered: bool) -> Result<()> {
        let len = client.write(self.now, flags, text, &mut self.frame)?;
        self.end.send(&self.frame[..len]);
        self.rest(LATENCY_US);
        self.pass(LATENCY_US);
        if answered {
            let answer = self.end.recv().with_context(|| format!("no answer to {flags:?}"))?;
            client.take(&answer, text)?;
        }
        Ok(())
    }

    /// A turn after `us` microseconds.
    pub(super) fn rest(&mut self, us: u64) {
        self.pass(us);
        self.shard.turn(self.now, &mut self.device, &mut self.echo);
    }

    /// Connections that are parked.
    pub(super) fn parked(&self) -> usize {
        self.shard.parked()
    }

    /// Has at least `echoes` requests answered, a burst at a time; returns how many.
    ///
    /// # Errors
    /// When an answer is missing or wrong.
    pub fn run(&mut self, echoes: usize) -> Result<usize> {
        let burst = BURST.min(self.clients.len());
        let mut done = 0;
        let mut chosen = Vec::with_capacity(burst);
        while done < echoes {
            self.choose(burst, &mut chosen);
            for &i in &chosen {
                let len = self.clients[i].write(self.now, Flags::ACK | Flags::PSH, &ECHO, &mut self.frame)?;
                self.end.send(&self.frame[..len]);
            }
            self.counted_turn();
            for &i in &chosen {
                let answer = self.end.recv().context("an answer is missing")?;
                self.clients[i].take(&answer, &ECHO)?;
            }
            done += burst;
        }
        Ok(done)
    }

    /// Has at least `count` connections opened, each answered one request, and closed by its client, a burst at a time; returns
    /// how many.
    ///
    /// # Errors
    /// When an answer is missing or wrong.
    pub fn run_connections(&mut self, case: &Case, count: usize) -> Result<usize> {
        let push = Flags::ACK | Flags::PSH;
        // What each says, whether with text, and whether that is answered.
        let steps = [
            (Flags::SYN, false, true),
            (Flags::ACK, false, false),
            (push, true, true),
            (Flags::FIN | Flags::ACK, false, true),
            (Flags::ACK, false, false),
        ];
        let mut done = 0;
        while done < count {
            let first = case.connections + done;
            let mut clients: Vec<Client> = (first..first + BURST).map(|number| Client::new(case, number)).collect();
            for (flags, text, answered) in steps {
                let text: &[u8] = if text { &ECHO } else { &[] };
                for client in &mut clients {
                    let len = client.write(self.now, flags, text, &mut self.frame)?;
                    self.end.send(&self.frame[..len]);
                }
                self.counted_turn();
                for client in clients.iter_mut().filter(|_| answered) {
                    let answer = self.end.recv().context("an answer is missing")?;
                    client.take(&answer, text)?;
                }
            }
            done += BURST;
        }
        ensure!(self.shard.live() == case.connections, "{} connections are left", self.shard.live());
        Ok(done)
    }

    /// What has been sent arrives and is served; the answers arrive too.
    fn counted_turn(&mut self) {
        self.pass(LATENCY_US);
        self.device.counting = true;
        counted_turn(&mut self.shard, self.now, &mut self.device, &mut self.echo);
        self.device.counting = false;
        self.pass(LATENCY_US);
    }

    fn choose(&mut self, burst: usize, chosen: &mut Vec<usize>) {
        chosen.clear();
        while chosen.len() < burst {
            let i = self.dice.below(self.clients.len() as u64) as usize;
            if !chosen.contains(&i) {
                chosen.push(i);
            }
        }
    }
}
