//! Paths that are narrower than their ends: a router that says so, one that says nothing, one that cuts packets in two; and a
//! link whose MTU changes.

use crate::life::restart;
use crate::{CLIENT_LIMIT, Case, Scene, own_stack};
use anyhow::{Context, Result, ensure};
use khamsin_tests::bed::{CLIENT_LINK, SERVER_LINK};
use khamsin_tests::command::run;
use khamsin_tests::netns::Netns;
use khamsin_tests::rung::Rung;
use rustix::process::Signal;
use std::time::Duration;

pub(crate) const CASES: &[Case] = &[
    Case::new("a_router_that_asks_for_smaller_packets", &["curl"], own_stack, asks),
    Case::new("a_router_that_swallows_long_packets", &["curl"], own_stack, swallows),
    Case::new("a_request_in_fragments", &["python3", "ping"], own_stack, fragments),
    Case::new("the_mtu_of_the_link_changes", &["python3"], own_stack, link_mtu),
];

/// The MTU of the narrow link, bytes: the least that IPv6 may have.
const NARROW: &str = "1280";
/// The router's address on the link to the far client, and the client's.
const FAR: [&str; 2] = ["198.18.1.1", "198.18.1.2"];
const FAR_V6: [&str; 2] = ["fd00:19::1", "fd00:19::2"];

/// The link that faces the server, in the client's namespace.
fn facing_server(scene: &Scene) -> &'static str {
    if scene.rung == Rung::Tap { "khamsin0" } else { CLIENT_LINK }
}

/// Makes the client's namespace a router, and a client behind it. Only the router's end of the link between them is narrow: the
/// client takes, and says that it takes, full packets.
fn far_client(scene: &Scene, case: &str) -> Result<Netns> {
    let router = scene.bed.client();
    let client = Netns::create(&format!("khc-{}-{case}-{}", std::process::id(), scene.rung))?;
    router.ip(&["link", "add", "khr0", "type", "veth", "peer", "name", "khu0", "netns", client.name()])?;
    for (netns, link, at, via) in [(router, "khr0", 0, None), (&client, "khu0", 1, Some(0))] {
        netns.ip(&["address", "add", &format!("{}/24", FAR[at]), "dev", link])?;
        netns.ip(&["address", "add", &format!("{}/64", FAR_V6[at]), "dev", link, "nodad"])?;
        netns.ip(&["link", "set", link, "up"])?;
        if let Some(via) = via {
            netns.ip(&["route", "add", "default", "via", FAR[via]])?;
            netns.ip(&["-6", "route", "add", "default", "via", FAR_V6[via]])?;
        }
    }
    router.ip(&["link", "set", "khr0", "mtu", NARROW])?;
    router.sysctl("net.ipv4.ip_forward", "1")?;
    router.sysctl("net.ipv6.conf.all.forwarding", "1")?;
    Ok(client)
}

fn download(scene: &Scene, client: &Netns, host: &str, limit: Duration) -> Result<()> {
    let url = format!("http://{host}/big");
    let mut command = client.command("curl");
    command.args(["-g", "-sS", "--fail", "--max-time", &limit.as_secs().to_string(), &url]);
    let ran = run(command, limit + Duration::from_secs(5))?.ok()?;
    ensure!(ran.stdout == scene.pages.bytes("big")?, "{url}: {} bytes, or others", ran.stdout.len());
    Ok(())
}

/// Ends the server and reads its counters from its log; a new one takes its place.
fn counters(scene: &mut Scene) -> Result<impl Fn(&str) -> u64 + use<>> {
    scene.server.signal(Signal::TERM)?;
    scene.server.wait(Duration::from_secs(11))?;
    let log = scene.server.log();
    restart(scene)?;
    Ok(move |name: &str| {
        let figures = log.split_whitespace().filter_map(|word| word.strip_prefix(name)?.strip_prefix('='));
        figures.filter_map(|n| n.parse::<u64>().ok()).sum()
    })
}

/// RFC 1191 and RFC 8201: the kernel's router tells the largest size, and a download goes on at once.
fn asks(scene: &mut Scene) -> Result<()> {
    let client = far_client(scene, "asks")?;
    download(scene, &client, scene.rung.v4(), Duration::from_secs(30))?;
    download(scene, &client, &format!("[{}]", scene.rung.v6()), Duration::from_secs(30))?;
    let counted = counters(scene)?;
    ensure!(counted("pmtu_lowered") == 2, "{} paths were found narrow", counted("pmtu_lowered"));
    ensure!(counted("pmtu_black_holes") == 0, "guessed although it was told");
    Ok(())
}

/// RFC 4821: nothing comes back. What the router itself would say to the server goes nowhere.
fn swallows(scene: &mut Scene) -> Result<()> {
    let client = far_client(scene, "swallows")?;
    let router = scene.bed.client();
    for (family, server) in [("-4", scene.rung.v4()), ("-6", scene.rung.v6())] {
        router.ip(&[family, "rule", "add", "pref", "0", "iif", "lo", "to", server, "blackhole"]).context("no rules")?;
    }
    download(scene, &client, scene.rung.v4(), Duration::from_secs(50))?;
    download(scene, &client, &format!("[{}]", scene.rung.v6()), Duration::from_secs(50))?;
    let counted = counters(scene)?;
    ensure!(counted("pmtu_lowered") == 0, "the router was heard");
    ensure!(counted("pmtu_black_holes") >= 2, "{} steps", counted("pmtu_black_holes"));
    Ok(())
}

/// Pings and requests in fragments, over either family, up to 40,000 bytes long.
fn fragments(scene: &mut Scene) -> Result<()> {
    let script = crate::script_path("fragments.py");
    for address in [scene.rung.v4(), scene.rung.v6()] {
        // Long pings come in fragments and go back in fragments; and the kernel learns the server's MAC.
        for size in ["56", "3000", "20000"] {
            let said = scene.client("ping", &["-c", "2", "-i", "0.2", "-w", "10", "-s", size, address])?.text();
            ensure!(said.contains(" 2 received") && !said.contains("wrong data"), "{said}");
        }
        let ran = scene.client("python3", &["-B", &script, facing_server(scene), address, "7"])?;
        ensure!(ran.text().contains("echoed 51400 bytes"), "{ran}");
    }
    let counted = counters(scene)?;
    // Four requests and four long pings over either family.
    ensure!(counted("frag_reassembled") == 16, "{} packets were put together", counted("frag_reassembled"));
    Ok(())
}

/// New segments follow the link's MTU, down and up again, on a server that runs.
fn link_mtu(scene: &mut Scene) -> Result<()> {
    let (netns, link) = match scene.rung {
        Rung::Tap => (&scene.bed.server, "khamsin0"),
        _ => (&scene.bed.server, SERVER_LINK),
    };
    let script = crate::script_path("mss.py");
    let mut seen = Vec::new();
    for mtu in ["1500", "1300", "1500"] {
        netns.ip(&["link", "set", link, "mtu", mtu])?;
        let known = |log: &str| log.matches("now has MTU").count() >= seen.len();
        khamsin_tests::deadline::wait_for("the server to hear of it", Duration::from_secs(10), || {
            Ok(known(&scene.server.log()).then_some(()))
        })?;
        let said = scene.client("python3", &["-B", &script, scene.rung.v4(), "80"])?.text();
        let figures: Vec<u32> = said.split_whitespace().filter_map(|word| word.parse().ok()).collect();
        seen.push(figures);
    }
    let [full, small, again] = &seen[..] else { unreachable!("three rounds") };
    ensure!(full == again && full.iter().all(|&n| n > 1400), "{seen:?}");
    ensure!(small.iter().all(|&n| n > 1200 && n <= 1260), "{seen:?}");
    client_is_well(scene)
}

fn client_is_well(scene: &Scene) -> Result<()> {
    let url = scene.url("/small");
    scene.bed.client().run("curl", &["-sS", "--fail", "--max-time", "10", &url], CLIENT_LIMIT).map(drop)
}
