//! Below TCP: echo requests, closed ports, VLAN tags.

use crate::http::curl;
use crate::{Case, Scene, own_stack};
use anyhow::{Result, ensure};
use khamsin_tests::bed::{Bed, CLIENT_LINK, CLIENT_V4, CLIENT_V6};
use khamsin_tests::command::run;
use khamsin_tests::rung::Rung;
use std::time::Duration;

pub(crate) const CASES: &[Case] = &[
    Case::new("ping", &["ping"], own_stack, |s| ping(s, s.rung.v4())),
    Case::new("ping_over_ipv6", &["ping"], own_stack, |s| ping(s, s.rung.v6())),
    Case::new("closed_port", &["curl"], own_stack, closed_port),
    Case { refusal: no_vlan, ..Case::new("vlan", &["curl", "ethtool"], own_stack, vlan) },
];

fn ping(scene: &Scene, address: &str) -> Result<()> {
    for size in ["56", "0", "1400"] {
        let said = scene.client("ping", &["-c", "3", "-i", "0.05", "-W", "5", "-s", size, address])?.text();
        ensure!(said.contains(" 0% packet loss") && !said.contains("wrong data"), "{said}");
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

/// Why this kernel makes no VLAN interfaces, if it does not.
fn no_vlan() -> Option<String> {
    let probe = Bed::alone().and_then(|bed| {
        bed.server.ip(&["link", "add", "link", "lo", "name", "kh7", "type", "vlan", "id", "7"]).map(drop)
    });
    probe.err().map(|_| "this kernel has no VLAN interfaces (CONFIG_VLAN_8021Q)".to_owned())
}

/// A client whose frames carry a VLAN tag is answered with the same tag.
fn vlan(scene: &mut Scene) -> Result<()> {
    let client = scene.bed.client();
    let parent = if scene.rung == Rung::Tap { "khamsin0" } else { CLIENT_LINK };
    if scene.rung != Rung::Tap {
        // veth would carry the tag beside the frame, where no XDP program sees it.
        client.run("ethtool", &["-K", parent, "txvlan", "off"], Duration::from_secs(10))?;
    }
    client.ip(&["link", "add", "link", parent, "name", "kh7", "type", "vlan", "id", "7"])?;
    client.ip(&["address", "flush", "dev", parent])?;
    client.ip(&["link", "set", "kh7", "up"])?;
    client.ip(&["address", "add", &format!("{CLIENT_V4}/24"), "dev", "kh7"])?;
    client.ip(&["address", "add", &format!("{CLIENT_V6}/64"), "dev", "kh7", "nodad"])?;
    let page = scene.pages.bytes("page")?;
    ensure!(curl(scene, &[&scene.url("/page")])?.stdout == page, "another page over the VLAN");
    let over_v6 = curl(scene, &["-g", &format!("http://[{}]/page", scene.rung.v6())])?;
    ensure!(over_v6.stdout == page, "another page over IPv6 on the VLAN");
    ensure!(curl(scene, &[&scene.url("/big")])?.stdout == scene.pages.bytes("big")?, "another file over the VLAN");
    ping(scene, scene.rung.v4())
}
