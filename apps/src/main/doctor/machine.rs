//! What this machine allows this process, found out by trying where trying is harmless.

use crate::demo::namespace;
use crate::privileges;
use caps::Capability;
use khamsin_drivers::epoll;
use rustix::io::Errno;
use rustix::net::{AddressFamily, SocketType, socket};
use rustix::process::{Resource, getrlimit};
use std::fs::{self, OpenOptions};

/// What was found out about the machine and this process.
#[derive(Clone, Debug)]
pub(crate) struct Machine {
    /// `uname -r`.
    pub(crate) release: String,
    /// Its first two numbers.
    pub(crate) kernel: (u32, u32),
    pub(crate) uid: u32,
    pub(crate) net_admin: bool,
    pub(crate) net_raw: bool,
    /// BPF programs may be loaded: CAP_BPF or CAP_SYS_ADMIN.
    pub(crate) bpf: bool,
    pub(crate) ipc_lock: bool,
    /// Whether capabilities hold on the machine itself; false inside a user namespace.
    pub(crate) initial_namespace: bool,
    /// Memory that may be locked, bytes; `None`: no limit.
    pub(crate) memlock: Option<u64>,
    /// Files that may be open.
    pub(crate) descriptors: u64,
    /// The lowest port that needs no privilege.
    pub(crate) first_free_port: u16,
    pub(crate) bind_service: bool,
    pub(crate) xdp_socket: Result<(), Errno>,
    pub(crate) packet_socket: Result<(), Errno>,
    pub(crate) tun: Result<(), i32>,
    /// Whether `khamsin demo` gets a network namespace of its own.
    pub(crate) private_namespace: Result<(), String>,
}

impl Machine {
    /// Looks and tries.
    pub(crate) fn look() -> Machine {
        let release = rustix::system::uname().release().to_string_lossy().into_owned();
        let try_socket = |family| socket(family, SocketType::RAW, None).map(drop);
        let read = |path: &str| fs::read_to_string(path).unwrap_or_default();
        let tun = OpenOptions::new().read(true).write(true).open("/dev/net/tun");
        Machine {
            kernel: numbers(&release),
            release,
            uid: rustix::process::getuid().as_raw(),
            net_admin: privileges::has(Capability::CAP_NET_ADMIN),
            net_raw: privileges::has(Capability::CAP_NET_RAW),
            bpf: privileges::has(Capability::CAP_BPF) || privileges::has(Capability::CAP_SYS_ADMIN),
            ipc_lock: privileges::has(Capability::CAP_IPC_LOCK),
            initial_namespace: !namespace::in_user_namespace(),
            memlock: getrlimit(Resource::Memlock).current,
            descriptors: epoll::raise_descriptor_limit().1,
            first_free_port: read("/proc/sys/net/ipv4/ip_unprivileged_port_start").trim().parse().unwrap_or(1024),
            bind_service: privileges::has(Capability::CAP_NET_BIND_SERVICE),
            xdp_socket: try_socket(AddressFamily::XDP),
            packet_socket: try_socket(AddressFamily::PACKET),
            tun: tun.map(drop).map_err(|e| e.raw_os_error().unwrap_or_default()),
            private_namespace: namespace::probe(),
        }
    }
}

/// The first two numbers of a release such as `6.18.44-fc`.
fn numbers(release: &str) -> (u32, u32) {
    let mut numbers = release.split(|c: char| !c.is_ascii_digit()).map(|n| n.parse().unwrap_or(0));
    (numbers.next().unwrap_or(0), numbers.next().unwrap_or(0))
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn releases_are_read() {
        for (release, kernel) in [("6.18.44-fc-v595", (6, 18)), ("5.10.0", (5, 10)), ("6.1", (6, 1)), ("odd", (0, 0))] {
            assert_eq!(numbers(release), kernel);
        }
    }
}
