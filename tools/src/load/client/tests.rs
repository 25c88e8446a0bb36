//! The client against the server's own stack and applications, in virtual time.

use super::*;
use crate::load::book::Together;
use crate::load::plan::{Pace, Plan, Target};
use crate::load::tally::Tally;
use crate::sim::server::{FILES, Files, Server, body_of_file, file_name, listeners};
use khamsin_drivers::sim::{Side, SimConfig, SimQueue, Wire};
use khamsin_stack::limits::Limits;
use khamsin_stack::{Shard, ShardConfig};
use std::time::Duration;

struct World {
    wire: Wire,
    server_queue: SimQueue,
    shard: Shard<Server, SimQueue>,
    app: Server,
    queue: SimQueue,
    client: Client<SimQueue>,
    now: Instant,
}

fn get(file: usize) -> Question {
    let body = Some(body_of_file(file, FILES[file]).into());
    Question::Get { host: "h".into(), path: format!("/{}", file_name(file)), status: 200, body }
}

fn plan(question: Question) -> Plan {
    let port = if matches!(question, Question::Echo { .. }) { 7 } else { 80 };
    Plan {
        target: Target { address: format!("198.18.0.2:{port}").parse().unwrap(), question },
        connections: 20,
        pipeline: 1,
        pace: Pace::Closed,
        fresh: false,
        idle: 0,
        wake: false,
        slow_bits_per_s: None,
        duration: Duration::from_secs(5),
        warm_up: Duration::ZERO,
        requests: None,
        handshakes: 8,
        timeout: Duration::from_secs(60),
        open_within: Duration::from_secs(100),
        window: None,
        poll: Poll::Sleep,
    }
}

/// A link as bad as this client is made for: it drops what overtakes, which costs the server a timeout now and then.
fn lossy(seed: u64) -> SimConfig {
    SimConfig {
        loss_per_million: 4_000,
        duplicate_per_million: 10_000,
        corrupt_per_million: 2_000,
        reorder_per_million: 2_000,
        seed,
        ..SimConfig::default()
    }
}

impl World {
    fn new(config: SimConfig, plan: Plan) -> World {
        let wire = Wire::new(config);
        let (server_queue, queue) = (wire.queue(Side::Left), wire.queue(Side::Right));
        let setup = ShardConfig {
            listeners: listeners(),
            addresses: Addresses::Own(vec![("198.18.0.2".parse().unwrap(), 15)]),
            gateways: vec![],
            limits: Limits::for_connections(400),
            secret: [7; 32],
            strays: None,
        };
        let shard = Shard::new(setup, server_queue.caps());
        let app = Server::new(&Files::new().unwrap(), false, std::rc::Rc::default());
        let now = Instant::from_millis(1);
        let together = Arc::new(Together { threads: 1, ..Together::default() });
        let book = Book::new(plan, Arc::default(), together, now).unwrap();
        let sources = vec!["198.18.1.1".parse().unwrap(), "198.18.1.2".parse().unwrap()];
        let link = Link { sources, next_hop: "198.18.0.2".parse().unwrap(), mac: None };
        let client = Client::new(book, link, &queue, now).unwrap();
        World { wire, server_queue, shard, app, queue, client, now }
    }

    /// Plays until the load is over and everything has come to rest, at most `seconds` of virtual time.
    fn play(mut self, seconds: u64) -> (Tally, World) {
        let limit = self.now.plus_micros(seconds * 1_000_000);
        while self.client.book.stage() != Stage::Over {
            assert!(self.now < limit, "the load is not over: {:?}", self.client.book.stage());
            self.step();
        }
        while !self.client.farewell(&mut self.queue) {
            self.step();
        }
        let until = self.now.plus_micros(2_000_000);
        while self.now < until {
            self.step();
        }
        // Those that the server only frees by and by are of no interest here; frames are.
        assert!(self.queue.held() <= 1 && self.server_queue.held() <= 1, "frames were lost by their owners");
        (self.client.book.tally.clone(), self)
    }

    fn step(&mut self) {
        self.wire.advance(self.now);
        let busy = self.client.turn(self.now, &mut self.queue);
        let turn = self.shard.turn(self.now, &mut self.server_queue, &mut self.app);
        if busy || turn.busy || self.wire.has_arrived(Side::Left) || self.wire.has_arrived(Side::Right) {
            self.now = self.now.plus_micros(1);
            return;
        }
        let next = [self.wire.next_arrival(), Some(self.client.deadline(self.now)), turn.deadline];
        self.now = next.into_iter().flatten().min().unwrap_or(self.now).max(self.now.plus_micros(1));
    }
}

fn clean(tally: &Tally) {
    assert_eq!(tally.errors_all(), 0, "{:?}", tally.said);
    assert!(tally.answered > 0);
}

#[test]
fn a_closed_loop_takes_a_round_trip_an_answer() {
    let (tally, world) = World::new(SimConfig::default(), plan(get(1))).play(60);
    clean(&tally);
    // 20 connections, a round trip of 1 ms each (and the microseconds that turns take), for 5 s.
    assert!((90_000..=100_000).contains(&tally.answered), "{}", tally.answered);
    assert!((1_000..1_100).contains(&tally.latency_us.value_at_quantile(0.5)));
    assert_eq!((tally.opened, world.client.figures.retransmitted), (20, 0));
    let frames = world.client.figures.frames_out;
    assert!(frames < tally.answered * 11 / 10 + 1_000, "acknowledgements ride on requests: {frames} frames");
}

#[test]
fn every_byte_arrives_over_a_bad_link() {
    let asked =
        [(get(1), 5), (get(4), 1), (get(5), 1), (Question::Echo { size: 100 }, 5), (Question::Echo { size: 9_000 }, 2)];
    for seed in 0..2 {
        for (question, pipeline) in asked.clone() {
            let name = format!("seed {seed}, pipeline {pipeline}, {}", question_name(&question));
            let plan = Plan { pipeline, requests: Some(200), duration: Duration::from_secs(300), ..plan(question) };
            let (tally, world) = World::new(lossy(seed), plan).play(400);
            assert_eq!((tally.errors_all(), tally.answered), (0, 200), "{name}: {:?}", tally.said);
            let f = world.client.figures;
            assert!(f.bad_checksums + f.retransmitted + f.out_of_order > 0, "{name}: the link was not bad");
        }
    }
}

fn question_name(question: &Question) -> String {
    match question {
        Question::Get { path, .. } => path.clone(),
        Question::Echo { size } => format!("echo {size}"),
    }
}

#[test]
fn each_request_can_have_its_own_connection() {
    for (config, question) in
        [(SimConfig::default(), get(1)), (lossy(3), get(4)), (lossy(4), Question::Echo { size: 500 })]
    {
        let name = question_name(&question);
        let plan = Plan { fresh: true, requests: Some(300), duration: Duration::from_secs(300), ..plan(question) };
        let (tally, world) = World::new(config, plan).play(400);
        assert_eq!((tally.errors_all(), tally.answered), (0, 300), "{name}: {:?}", tally.said);
        assert_eq!((tally.opened, world.client.open(), world.shard.live()), (300, 0, 0), "{name}");
    }
}

#[test]
fn idle_connections_are_held_and_wake() {
    let (tally, world) = World::new(SimConfig::default(), Plan { idle: 200, wake: true, ..plan(get(2)) }).play(60);
    clean(&tally);
    assert_eq!((tally.opened, tally.idle_held, tally.idle_lost, tally.woken), (220, 200, 0, 200));
    assert_eq!(world.shard.live(), 0, "resets have told the server");
}

#[test]
fn slow_connections_are_as_slow_as_they_should_be() {
    let plan = Plan { slow_bits_per_s: Some(28_800), duration: Duration::from_secs(100), ..plan(get(7)) };
    let (tally, _) = World::new(SimConfig::default(), plan).play(200);
    assert_eq!(tally.errors_all(), 0, "{:?}", tally.said);
    // 3,600 bytes a second each, and what lies in the window.
    let each = tally.bytes / 20;
    assert!((360_000..=360_000 + 8_192).contains(&each), "{each} bytes each");
}

#[test]
fn an_open_loop_keeps_its_rate() {
    let plan = Plan { pace: Pace::Open { per_second: 2_000.0 }, ..plan(get(1)) };
    let (tally, _) = World::new(SimConfig::default(), plan).play(60);
    clean(&tally);
    assert!((9_990..=10_000).contains(&tally.answered) && tally.unsent == 0, "{} answered", tally.answered);
    assert_eq!(tally.corrected_us.len(), 10_000);
    assert!(tally.corrected_us.max() < 1_200);
}

#[test]
fn a_closed_port_and_a_wrong_path_are_told_apart() {
    let mut refused = plan(get(1));
    refused.target.address.set_port(81);
    let (tally, _) = World::new(SimConfig::default(), Plan { open_within: Duration::from_secs(2), ..refused }).play(60);
    assert!(tally.errors[Trouble::Connect as usize] >= 20 && tally.answered == 0);
    assert!(tally.said[0].contains("refuses"), "{:?}", tally.said);
    let missing = Question::Get { host: "h".into(), path: "/none".into(), status: 200, body: None };
    let (tally, _) = World::new(SimConfig::default(), plan(missing)).play(60);
    assert!(tally.errors[Trouble::Status as usize] >= 20 && tally.answered == 0);
}

#[test]
fn other_bytes_than_expected_are_an_error() {
    let mut question = get(4);
    if let Question::Get { body: Some(body), .. } = &mut question {
        let mut other = body.to_vec();
        other[9_999] ^= 1;
        *body = other.into();
    }
    let (tally, _) = World::new(SimConfig::default(), plan(question)).play(60);
    assert!(tally.errors[Trouble::Bytes as usize] >= 20 && tally.answered == 0);
}
