//! `--capture`: what the kernel's clients and khamsin said to each other is in the file, on every rung that sees frames.

use crate::{Case, Scene, life, own_stack};
use anyhow::{Context, Result, ensure};
use khamsin_tests::server::Server;
use pcap_file::pcapng::blocks::enhanced_packet::EnhancedPacketOption;
use pcap_file::pcapng::{Block, PcapNgReader};
use rustix::process::Signal;
use std::fs::File;
use std::path::Path;
use std::time::Duration;

pub(crate) const CASES: &[Case] = &[Case::new("capture", &["curl", "nc", "tcpdump"], own_stack, capture)];

/// What a file says.
#[derive(Debug, Default)]
struct Captured {
    received: usize,
    sent: usize,
    comments: Vec<String>,
    /// Everything that khamsin sent, frame after frame.
    bytes_sent: Vec<u8>,
}

fn read(path: &Path) -> Result<Captured> {
    let mut reader = PcapNgReader::new(File::open(path)?)?;
    let mut captured = Captured::default();
    while let Some(block) = reader.next_block() {
        let Block::EnhancedPacket(packet) = block? else { continue };
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
