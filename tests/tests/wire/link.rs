//! Below TCP: echo requests, closed ports, VLAN tags.

use crate::{CLIENT_LIMIT, Case, Scene, own_stack};
use anyhow::{Context, Result, ensure};
use khamsin_tests::bed::{CLIENT_LINK, CLIENT_V4, CLIENT_V6};
use khamsin_tests::command::run;
use khamsin_tests::netns::Netns;
use khamsin_tests::rung::Rung;
use std::time::Duration;

pub(crate) const CASES: &[Case] = &[
    Case::new("ping", &["ping"], own_stack, |s| ping(s.bed.client(), s.rung.v4())),
    Case::new("ping_over_ipv6", &["ping"], own_stack, |s| ping(s.bed.client(), s.rung.v6())),
    Case::new("closed_port", &["curl"], own_stack, closed_port),
    Case::new("vlan", &["curl", "ping", "python3"], own_stack, vlan),
];

fn ping(client: &Netns, address: &str) -> Result<()> {
    for size in ["56", "0", "1400"] {
        // -w and not -W: once one answer is in, -W waits for two round trips only, microseconds here, and a stall of the
        // machine would count as loss.
        let arguments = ["-c", "3", "-i", "0.2", "-w", "10", "-s", size, address];
        let said = client.run("ping", &arguments, CLIENT_LIMIT)?.text();
        ensure!(said.contains(" 3 received") && !said.contains("wrong data"), "{said}");
    }
    Ok(())
}

/// A port that nobody listens on refuses at once: curl's exit code 7, no time-out.
fn closed_port(scene: &mut Scene) -> Result<()> {
    for host in [scene.rung.v4().to_owned(), format!("[{}]", scene.rung.v6())] {
        let mut command = scene.bed.client().command("curl");
        command.args(["-g", "-sS", "--max-time", "10", &format!("http://{host}:81/")]);
        let ran = run(command, Duration::from_secs(20))?;
        ensure!(ran.status.code() == Some(7), "{ran}");
    }
    Ok(())
}

/// A client whose frames carry a VLAN tag is answered with the same tag.
///
/// Not every kernel makes VLAN interfaces, so the tag is put on and taken off on the wire, by `clients/tag.py` between the
/// client's link and the server's: it passes no frame of the server's on that lacks the tag.
fn vlan(scene: &mut Scene) -> Result<()> {
    let wire = scene.bed.client();
    let facing_server = if scene.rung == Rung::Tap { "khamsin0" } else { CLIENT_LINK };
    let client = Netns::create(&format!("khc-{}-vlan-{}", std::process::id(), scene.rung))?;
    wire.ip(&["address", "flush", "dev", facing_server])?;
    wire.ip(&["link", "add", "khp0", "type", "veth", "peer", "name", "khu0", "netns", client.name()])?;
    wire.ip(&["link", "set", "khp0", "up"])?;
    client.ip(&["address", "add", &format!("{CLIENT_V4}/24"), "dev", "khu0"])?;
    client.ip(&["address", "add", &format!("{CLIENT_V6}/64"), "dev", "khu0", "nodad"])?;
    client.ip(&["link", "set", "khu0", "up"])?;
    let script = crate::script_path("tag.py");
    let mut tagging = scene.start_client("python3", &["-B", &script, "khp0", facing_server, "7"], None)?;
    tagging.await_output("wired", CLIENT_LIMIT)?;

    let get = |host: &str, name: &str| -> Result<()> {
        let url = format!("http://{host}/{name}");
        let ran = client.run("curl", &["-g", "-sS", "--fail", "--max-time", "30", &url], CLIENT_LIMIT);
        let ran = ran.with_context(|| format!("the tagging wire: {}", tagging.errors_so_far()))?;
        ensure!(ran.stdout == scene.pages.bytes(name)?, "{url}: {} bytes, or others", ran.stdout.len());
        Ok(())
    };
    get(scene.rung.v4(), "page")?;
    get(&format!("[{}]", scene.rung.v6()), "page")?;
    get(scene.rung.v4(), "big")?;
    ping(&client, scene.rung.v4())?;
    ping(&client, scene.rung.v6())
}
