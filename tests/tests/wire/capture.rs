//! `--capture`: what the kernel's clients and khamsin said to each other is in the file, on every rung that sees frames, and
//! replays to the same bytes. `khamsin-replay --live`: recorded clients against khamsin and against the kernel.

use crate::{CLIENT_LIMIT, Case, Scene, generator, life, own_stack};
use anyhow::{Context, Result, ensure};
use khamsin::http::{Loader, SiteConfig};
use khamsin_tests::bed::CLIENT_LINK;
use khamsin_tests::deadline::wait_for;
use khamsin_tests::rung::Rung;
use khamsin_tests::server::Server;
use khamsin_tools::replay::judge::judge;
use khamsin_tools::replay::live::Wire;
use khamsin_tools::replay::mapping::Sides;
use khamsin_tools::replay::reader::Bounds;
use khamsin_tools::replay::report::report;
use khamsin_tools::replay::server::Against;
use khamsin_tools::replay::trace::Trace;
use khamsin_tools::replay::world::{Order, Plans, replay};
use pcap_file::pcapng::blocks::enhanced_packet::EnhancedPacketOption;
use pcap_file::pcapng::blocks::interface_statistics::InterfaceStatisticsOption;
use pcap_file::pcapng::{Block, PcapNgReader};
use rustix::process::{Pid, Resource, Rlimit, Signal, prlimit};
use std::fs::{self, File};
use std::path::{Path, PathBuf};
use std::thread;
use std::time::Duration;

pub(crate) const CASES: &[Case] = &[
    Case::new("capture", &["curl", "nc", "tcpdump"], own_stack, capture),
    Case::new("capture_replays", &[], own_stack, capture_replays),
    Case::new("capture_file_full", &[], own_stack, file_full),
    Case::new("capture_killed", &["curl"], on_packets, killed),
    Case::new("capture_removed", &["curl"], on_packets, removed),
    Case::new("capture_ends", &["python3"], on_packets, ends),
    Case::new("replay_live", &[], generator::behind_veth, replay_live),
];

/// One rung will do: what is tested is the file's.
fn on_packets(rung: Rung) -> bool {
    rung == Rung::Packet
}

/// What a file says.
#[derive(Debug, Default)]
struct Captured {
    received: usize,
    sent: usize,
    /// `isb_osdrop`, and what is said beside it.
    missing: Vec<u64>,
    last_words: Vec<String>,
    comments: Vec<String>,
    /// Everything that khamsin sent, frame after frame.
    bytes_sent: Vec<u8>,
}

fn read(path: &Path) -> Result<Captured> {
    let mut reader = PcapNgReader::new(File::open(path)?)?;
    let mut captured = Captured::default();
    while let Some(block) = reader.next_block() {
        let packet = match block? {
            Block::EnhancedPacket(packet) => packet,
            Block::InterfaceStatistics(block) => {
                for option in block.options {
                    match option {
                        InterfaceStatisticsOption::IsbOsDrop(n) => captured.missing.push(n),
                        InterfaceStatisticsOption::Comment(text) => captured.last_words.push(text.to_string()),
                        _ => {}
                    }
                }
                continue;
            }
            _ => continue,
        };
        for option in &packet.options {
            match option {
                EnhancedPacketOption::Flags(1) => captured.received += 1,
                EnhancedPacketOption::Flags(2) => {
                    captured.sent += 1;
                    captured.bytes_sent.extend_from_slice(&packet.data);
                }
                EnhancedPacketOption::Comment(text) => captured.comments.push(text.to_string()),
                _ => {}
            }
        }
    }
    Ok(captured)
}

fn capture(scene: &mut Scene) -> Result<()> {
    let folder = tempfile::tempdir()?;
    let path = folder.path().join("wire.pcapng");
    let name = path.to_string_lossy().into_owned();
    stop(scene)?;
    scene.server = Server::with(scene.rung, &scene.bed, scene.pages.path(), &["--capture", &name])?;
    crate::address_host_side(scene.rung, &scene.bed)?;
    let page = scene.client("curl", &["-sS", "--fail", "--max-time", "20", &scene.url("/small")])?.stdout;
    let words = format!("printf %s captured-words | nc -N -w 20 {} 7", scene.rung.v4());
    scene.client("sh", &["-c", &words])?;
    stop(scene)?;
    let captured = read(&path).context("the capture cannot be read")?;
    ensure!(captured.received >= 6 && captured.sent >= 6, "too few frames: {captured:?}");
    let has = |text: &[u8]| captured.bytes_sent.windows(text.len()).any(|w| w == text);
    ensure!(has(&page[..page.len().min(64)]) && has(b"captured-words"), "an answer is missing");
    let ended = captured.comments.iter().filter(|c| c.contains(": finished after ")).count();
    ensure!(ended == 2 && captured.comments.len() == 2, "{:?}", captured.comments);
    let echoed = "received 14 B (0 segments again or late), sent 14 B (0 segments again)";
    ensure!(captured.comments.iter().any(|c| c.contains(echoed)), "{:?}", captured.comments);
    // Somebody else's reader.
    let frames = scene.client("tcpdump", &["-n", "-r", &name, "tcp"])?;
    ensure!(frames.text().lines().count() >= 12, "tcpdump reads another file: {frames}");
    life::restart(scene)
}

fn stop(scene: &mut Scene) -> Result<()> {
    scene.server.signal(Signal::TERM)?;
    let status = scene.server.wait(Duration::from_secs(11)).context("the server does not end")?;
    ensure!(status.code() == Some(0), "exit code {:?}: {}", status.code(), scene.server.log());
    Ok(())
}

/// Starts the server again, capturing into `path`.
fn record(scene: &mut Scene, path: &Path) -> Result<()> {
    stop(scene)?;
    let name = path.to_string_lossy().into_owned();
    scene.server = Server::with(scene.rung, &scene.bed, scene.pages.path(), &["--capture", &name])?;
    crate::address_host_side(scene.rung, &scene.bed)
}

/// Load on the real server, and then its clients once more against the same application in virtual time: the same bytes.
///
/// All that is captured fits into the ring in front of the file, so that no frame can be missing.
fn capture_replays(scene: &mut Scene) -> Result<()> {
    let folder = tempfile::tempdir()?;
    for (against, target, line) in [
        (Against::Echo, "echo", "-c 16 -n 150 --size 20000 --pipeline 4"),
        (Against::Http, "/page", "-c 8 -n 150 --new-connections"),
    ] {
        let path = folder.path().join("load.pcapng");
        record(scene, &path)?;
        let done = generator::load(scene, &generator::words(scene, target, line))?;
        stop(scene)?;
        ensure!(scene.server.log().contains("; 0 are missing"), "the capture is not whole: {}", scene.server.log());
        let trace = Trace::read(&path, &Bounds::default())?;
        ensure!(trace.troubles().is_empty() && trace.flows.len() as u64 == done.opened, "{:?}", trace.troubles());
        let (site, _) = Loader::start(SiteConfig { reload: Duration::ZERO, ..SiteConfig::new(scene.pages.path()) })?;
        let plans = Plans::new(&trace.flows);
        for (against, fast) in
            [(against, false), (against, true), (Against::Scripted, false), (Against::Scripted, true)]
        {
            let order = Order { against, fast, site: Some(site.clone()), ..Order::default() };
            let outcome = replay(&trace.flows, &plans, &order)?;
            let (table, same) = report(&outcome, against);
            ensure!(same && outcome.clients.len() == trace.flows.len(), "{against:?}, fast: {fast}\n{table}");
            let said: u64 = trace.flows.iter().map(|flow| flow.down.bytes()).sum();
            ensure!(outcome.counters.tx_payload_bytes == said && said > 0, "{said} bytes were said\n{table}");
        }
        life::restart(scene)?;
    }
    Ok(())
}

/// A file that may grow no further (`ulimit -f` here; a full disk says it with other words): the server goes on and says so
/// once, the file ends with a whole block that says how much is missing.
fn file_full(scene: &mut Scene) -> Result<()> {
    let folder = tempfile::tempdir()?;
    let path = folder.path().join("full.pcapng");
    record(scene, &path)?;
    let limit = Rlimit { current: Some(300_001), maximum: Some(300_001) };
    prlimit(Pid::from_raw(scene.server.id() as i32), Resource::Fsize, limit)?;
    for _ in 0..2 {
        let done = generator::load(scene, &generator::words(scene, "/page", "-c 8 -n 100 --new-connections"))?;
        ensure!(done.answered == 100, "{done:?}");
    }
    stop(scene)?;
    let log = scene.server.log();
    ensure!(log.matches("does not take it").count() == 1 && log.contains("File too large"), "{log}");
    let captured = read(&path).context("the file does not end with a whole block")?;
    let frames = captured.received + captured.sent;
    let [missing] = captured.missing[..] else { anyhow::bail!("no statistics: {captured:?}") };
    ensure!(
        log.contains(&format!("captured {frames} frames into")) && log.contains(&format!("; {missing} are missing"))
    );
    let words = format!("{missing} frames are missing behind the last one: File too large");
    ensure!(captured.last_words.iter().any(|said| said.starts_with(&words)), "{:?}", captured.last_words);
    ensure!(frames > 20 && fs::metadata(&path)?.len() > 200_000, "{frames} frames in the file");
    life::restart(scene)
}

/// After `kill -9` the file has all but the last moment.
fn killed(scene: &mut Scene) -> Result<()> {
    let folder = tempfile::tempdir()?;
    let path = folder.path().join("killed.pcapng");
    record(scene, &path)?;
    for _ in 0..3 {
        scene.client("curl", &["-sS", "--fail", "--max-time", "20", "-o", "/dev/null", &scene.url("/page")])?;
    }
    thread::sleep(Duration::from_millis(300));
    scene.server.signal(Signal::KILL)?;
    scene.server.wait(Duration::from_secs(5))?;
    let captured = read(&path)?;
    let ended = captured.comments.iter().filter(|c| c.contains(": finished after ")).count();
    ensure!(ended == 3 && captured.missing.is_empty(), "{captured:?}");
    life::restart(scene)
}

/// Nobody finds what goes into a file that was removed: said once. One that was renamed goes on under its new name.
fn removed(scene: &mut Scene) -> Result<()> {
    let folder = tempfile::tempdir()?;
    let (path, other) = (folder.path().join("here.pcapng"), folder.path().join("there.pcapng"));
    let page = |scene: &Scene| {
        scene.client("curl", &["-sS", "--fail", "--max-time", "20", "-o", "/dev/null", &scene.url("/small")])
    };
    record(scene, &path)?;
    page(scene)?;
    fs::rename(&path, &other)?;
    page(scene)?;
    stop(scene)?;
    ensure!(!scene.server.log().contains("was removed"), "{}", scene.server.log());
    let captured = read(&other)?;
    ensure!(captured.comments.len() == 2 && captured.missing == [0], "{captured:?}");

    scene.server = Server::on(scene.rung, &scene.bed, scene.pages.path())?;
    record(scene, &path)?;
    page(scene)?;
    fs::remove_file(&path)?;
    wait_for("a word about the file", Duration::from_secs(20), || {
        page(scene)?;
        thread::sleep(Duration::from_millis(200));
        Ok(scene.server.log().contains("here.pcapng was removed").then_some(()))
    })?;
    stop(scene)?;
    ensure!(scene.server.log().matches("was removed").count() == 1, "{}", scene.server.log());
    life::restart(scene)
}

/// The comments on connections that end otherwise than by both sides' wish; none where there was no connection.
fn ends(scene: &mut Scene) -> Result<()> {
    let folder = tempfile::tempdir()?;
    let path = folder.path().join("ends.pcapng");
    stop(scene)?;
    let options = ["--drain", "1", "--capture", &path.to_string_lossy()];
    scene.server = Server::with(scene.rung, &scene.bed, scene.pages.path(), &options)?;
    let mut client = scene.start_client("python3", &["-c", ENDS, scene.rung.v4()], None)?;
    client.await_output("said", CLIENT_LIMIT)?;
    stop(scene)?;
    client.finish(CLIENT_LIMIT)?.ok()?;
    let comments = read(&path)?.comments;
    let has = |reason: &str, bytes: &str| {
        comments.iter().any(|c| c.contains(&format!(": {reason} after ")) && c.contains(bytes))
    };
    let quiet = |n| format!("received {n} B (0 segments again or late), sent {n} B (0 segments again)");
    ensure!(comments.len() == 3 && has("reset by the peer", &quiet(4)), "{comments:#?}");
    // Neither has ended its own side, and one still waits for most of what it asked for.
    ensure!(has("drained", "received 28 B") && has("drained", &quiet(0)), "{comments:#?}");
    life::restart(scene)
}

/// A refused connection, one that is reset, one that stays and says nothing, one that reads nothing.
const ENDS: &str = r#"
import select, socket, struct, sys
def connect(port):
    return socket.create_connection((sys.argv[1], port), timeout=20)
try:
    connect(81)
    sys.exit("port 81 is open")
except ConnectionRefusedError:
    pass
reset = connect(7)
reset.sendall(b"four")
assert reset.recv(100) == b"four"
reset.setsockopt(socket.SOL_SOCKET, socket.SO_LINGER, struct.pack("ii", 1, 0))
reset.close()
silent = connect(7)
busy = connect(80)
busy.sendall(b"GET /big HTTP/1.1\r\nHost:\r\n\r\n")
print("said", flush=True)
assert silent.recv(100) == b""
reset = select.poll()
reset.register(busy, 0)
assert reset.poll(15000), "it is not reset"
"#;

/// A recorded request, played by many clients on the wire over IPv4 and IPv6, against khamsin's stack and against the kernel's.
fn replay_live(scene: &mut Scene) -> Result<()> {
    let path = PathBuf::from(env!("CARGO_MANIFEST_DIR")).join("traces/link-ethernet.pcap");
    let v4 = Sides { server: scene.rung.v4().parse()?, port: None, first: "198.18.0.64".parse()?, count: 62 };
    let v6 = Sides { server: scene.rung.v6().parse()?, port: None, first: "fd00:18::1:1".parse()?, count: 20 };
    let played = scene.bed.client().enter(move || -> Result<()> {
        let trace = Trace::read(&path, &Bounds::default())?;
        let plans = Plans::new(&trace.flows);
        let interface = CLIENT_LINK.to_owned();
        let wire = |sides| Wire { interface: interface.clone(), sides, mac: None, limit: Duration::from_secs(30) };
        for (sides, fast, speed, copies, rounds) in [
            (vec![v4, v6], false, 0.5, 30, 2),
            (vec![v4], true, 1.0, 40, 1),
            (vec![v6], true, 1.0, 40, 1),
            (vec![v6, v4], false, 4.0, 1, 3),
        ] {
            let clients = copies * rounds * sides.len();
            let order = Order { fast, speed, copies, rounds, live: Some(wire(sides)), ..Order::default() };
            let outcome = replay(&trace.flows, &plans, &order)?;
            let (table, same) = report(&outcome, Against::Sink);
            ensure!(same && outcome.clients.len() == clients, "{table}");
            for (client, _) in &outcome.clients {
                let verdict = judge(client, Against::Sink);
                ensure!(verdict.open && verdict.sent == 27 && verdict.accepted == 27, "{table}");
                ensure!(verdict.received > 100, "no answer:\n{table}");
            }
        }
        Ok(())
    })?;
    played.context("a recorded client does otherwise on the wire")
}
