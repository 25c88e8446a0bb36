//! A network namespace of the demo's own, without root where the system allows it, and what is in it.

use khamsin::output::say;
use khamsin_drivers::link;
use rustix::process::{DumpableBehavior, getgid, getuid, set_dumpable_behavior};
use rustix::thread::UnshareFlags;
use std::fs;
use std::net::{IpAddr, Ipv4Addr, Ipv6Addr};
use std::process::{Command, ExitCode, Stdio};

/// The end of the pair where the kernel is, with the clients.
pub(crate) const CLIENT_LINK: &str = "kh-demo0";
/// The end of the pair where khamsin is.
pub(crate) const SERVER_LINK: &str = "kh-demo1";
/// The kernel's address.
pub(crate) const CLIENT_V4: Ipv4Addr = Ipv4Addr::new(198, 18, 0, 1);
/// khamsin's address.
pub(crate) const SERVER_V4: Ipv4Addr = Ipv4Addr::new(198, 18, 0, 2);
/// The kernel's IPv6 address.
pub(crate) const CLIENT_V6: Ipv6Addr = Ipv6Addr::new(0xfd00, 0, 0, 0, 0, 0, 0, 1);
/// khamsin's IPv6 address.
pub(crate) const SERVER_V6: Ipv6Addr = Ipv6Addr::new(0xfd00, 0, 0, 0, 0, 0, 0, 2);
/// Set in the child that only finds out whether a namespace is to be had.
const PROBE: &str = "KHAMSIN_NAMESPACE_PROBE";

/// Whether this process is such a child.
pub(crate) fn is_probe() -> bool {
    std::env::var_os(PROBE).is_some()
}

/// The body of such a child: tries for real, tells the reason on stdout.
pub(crate) fn probe_child() -> ExitCode {
    match enter().and_then(|()| furnish()) {
        Ok(_) => ExitCode::SUCCESS,
        Err(reason) => {
            // To a parent that waits for it.
            let _ = say(reason);
            ExitCode::FAILURE
        }
    }
}

/// Whether a namespace is to be had, tried in a child: a process that fails half-way in cannot go back.
///
/// # Errors
/// Why not, and what would mend it.
pub(crate) fn probe() -> Result<(), String> {
    let mut child = Command::new("/proc/self/exe");
    child.arg("demo").env(PROBE, "1").stdin(Stdio::null()).stderr(Stdio::null());
    let output =
        child.output().map_err(|e| format!("a child to try it could not be started ({e}); is /proc mounted?"))?;
    if output.status.success() {
        return Ok(());
    }
    let reason = String::from_utf8_lossy(&output.stdout).trim().to_owned();
    Err(if reason.is_empty() { format!("the child that tried it ended with {}", output.status) } else { reason })
}

/// Moves the calling thread into a network namespace of its own: as root directly, otherwise inside a user namespace in
/// which this user is root. Threads started from now on are there too; call it while there is no other.
///
/// # Errors
/// The system does not allow it, and what would mend that.
pub(crate) fn enter() -> Result<(), String> {
    if try_unshare(UnshareFlags::NEWNET).is_ok() {
        return Ok(());
    }
    let (uid, gid) = (getuid().as_raw(), getgid().as_raw());
    try_unshare(UnshareFlags::NEWUSER | UnshareFlags::NEWNET).map_err(why_not)?;
    // A program with file capabilities starts out not dumpable, and the files below are then root's (proc(5)). The
    // capabilities are those of the new namespace by now, which this user owns. A refusal shows when the files are written.
    let _ = set_dumpable_behavior(DumpableBehavior::Dumpable);
    let write = |file: &str, text: String| {
        fs::write(format!("/proc/self/{file}"), text)
            .map_err(|e| format!("/proc/self/{file} could not be written ({e})"))
    };
    // Without this an unprivileged process may not map its group (user_namespaces(7)).
    write("setgroups", "deny".into())?;
    write("uid_map", format!("0 {uid} 1"))?;
    write("gid_map", format!("0 {gid} 1"))
}

/// rustix calls this deprecated because with `FILES` it could pull descriptors away under other threads; that flag is
/// never passed here.
#[allow(deprecated)]
fn try_unshare(flags: UnshareFlags) -> rustix::io::Result<()> {
    rustix::thread::unshare(flags)
}

fn why_not(errno: rustix::io::Errno) -> String {
    let sysctl = |path: &str| fs::read_to_string(format!("/proc/sys/{path}")).map(|v| v.trim().to_owned()).ok();
    let mend = if sysctl("kernel/unprivileged_userns_clone").as_deref() == Some("0") {
        "sysctl kernel.unprivileged_userns_clone=1"
    } else if sysctl("user/max_user_namespaces").as_deref() == Some("0") {
        "sysctl user.max_user_namespaces=15000"
    } else if sysctl("kernel/apparmor_restrict_unprivileged_userns").as_deref() == Some("1") {
        "sysctl kernel.apparmor_restrict_unprivileged_userns=0"
    } else {
        "run it as root, or in a sandbox that allows unshare(2)"
    };
    format!("a user and network namespace was refused ({errno}); mend: {mend}")
}

/// Makes the pair of interfaces and gives the kernel its addresses. True: IPv6 too.
///
/// # Errors
/// The kernel has no veth, or says no for another reason.
pub(crate) fn furnish() -> Result<bool, String> {
    let told = |e: link::Error| match fs::read_to_string("/proc/sys/kernel/apparmor_restrict_unprivileged_userns") {
        Ok(v) if v.trim() == "1" => format!("{e}; mend: sysctl kernel.apparmor_restrict_unprivileged_userns=0"),
        _ => e.to_string(),
    };
    link::set_up("lo").map_err(told)?;
    link::create_veth(CLIENT_LINK, SERVER_LINK, 1).map_err(told)?;
    link::set_up(CLIENT_LINK).map_err(told)?;
    link::set_up(SERVER_LINK).map_err(told)?;
    link::add_address(CLIENT_LINK, IpAddr::V4(CLIENT_V4), 24).map_err(told)?;
    // A machine without IPv6 is a machine without IPv6.
    Ok(link::add_address(CLIENT_LINK, IpAddr::V6(CLIENT_V6), 64).is_ok())
}

/// Whether this process is in a user namespace that is not the machine's.
pub(crate) fn in_user_namespace() -> bool {
    let map = fs::read_to_string("/proc/self/uid_map").unwrap_or_default();
    !map.split_whitespace().eq(["0", "0", "4294967295"])
}
