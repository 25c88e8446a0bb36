//! From facts to a verdict on each rung: pure, so that machines nobody has here are tested too.

use super::machine::Machine;
use crate::rung::Rung;
use khamsin_drivers::af_xdp::mtu_max;
use khamsin_drivers::link::{Link, XdpFeatures};
use rustix::io::Errno;

/// An interface and what its driver says of XDP (`None`: the kernel is too old to tell).
#[derive(Clone, Debug)]
pub(crate) struct Interface {
    pub(crate) link: Link,
    pub(crate) features: Option<XdpFeatures>,
    /// The kernel's number of the XDP program that is attached, if one is.
    pub(crate) program: Option<u32>,
}

/// What stands in the way, and the command or the change that mends it.
#[derive(Clone, PartialEq, Eq, Debug)]
pub(crate) struct Problem {
    pub(crate) what: String,
    pub(crate) mend: String,
}

/// Whether a rung can be taken.
#[derive(Clone, PartialEq, Eq, Debug)]
pub(crate) struct Verdict {
    pub(crate) rung: Rung,
    /// Empty: it can.
    pub(crate) problems: Vec<Problem>,
    /// What is good to know all the same.
    pub(crate) notes: Vec<String>,
}

impl Verdict {
    /// Whether the rung can be taken.
    pub(crate) fn is_yes(&self) -> bool {
        self.problems.is_empty()
    }
}

/// The oldest kernel whose XDP programs go when their owner goes (bpf_link for XDP).
const XDP_LINK_KERNEL: (u32, u32) = (5, 9);

/// The rungs of an interface, highest first.
pub(crate) fn on_interface(machine: &Machine, interface: &Interface) -> Vec<Verdict> {
    vec![
        xdp(machine, interface, Rung::AfXdpZeroCopy),
        xdp(machine, interface, Rung::AfXdpNative),
        xdp(machine, interface, Rung::AfXdpGeneric),
        packet(machine, interface),
    ]
}

/// The rungs that need no interface, highest first.
pub(crate) fn without_interface(machine: &Machine) -> Vec<Verdict> {
    vec![tap(machine), epoll(machine)]
}

fn xdp(machine: &Machine, Interface { link, features, program }: &Interface, rung: Rung) -> Verdict {
    let mut v = Verdict { rung, problems: Vec::new(), notes: Vec::new() };
    let name = &link.name;
    let driver = link.kind.as_deref().unwrap_or("its driver");
    if machine.kernel < XDP_LINK_KERNEL {
        v.problem(format!("kernel {} is older than 5.9", machine.release), "a newer kernel");
    }
    if machine.xdp_socket == Err(Errno::AFNOSUPPORT) {
        v.problem("the kernel was built without AF_XDP", "a kernel with CONFIG_XDP_SOCKETS=y");
    }
    v.needs_capabilities(&[
        ("cap_net_admin", machine.net_admin),
        ("cap_net_raw", machine.net_raw),
        ("cap_bpf", machine.bpf),
    ]);
    if machine.bpf && !machine.initial_namespace {
        v.problem("BPF programs cannot be loaded inside a user namespace", "start khamsin outside of it");
    }
    let generic = rung == Rung::AfXdpGeneric;
    let native = features.is_some_and(|f| f.native) || features.is_none();
    if !generic && !native {
        v.problem(format!("{driver} has no XDP in the driver"), "another NIC, or the rung af-xdp-generic");
    } else if rung == Rung::AfXdpZeroCopy && features.is_some_and(|f| !f.zero_copy) {
        v.problem(format!("{driver} cannot write into khamsin's memory"), "another NIC, or the rung af-xdp-native");
    }
    if !generic && native && features.is_none() {
        v.notes.push(format!("this kernel cannot tell what {driver} supports; only starting khamsin shows it"));
    }
    if !generic && features.is_some_and(|f| f.native) && driver != "veth" {
        v.notes.push(format!("so {driver} says; only a start with --require {rung} proves it"));
        if driver == "virtio_net" {
            v.notes.push("virtio_net refuses while its host may merge segments: QEMU guest_tso4=off,guest_tso6=off,guest_ecn=off,guest_ufo=off,guest_csum=off".into());
        }
    }
    if let Some(id) = program {
        v.problem(
            format!("an XDP program (id {id}) is attached already"),
            format!("`bpftool prog show id {id}` says whose; `ip link set dev {name} xdp off` takes it off"),
        );
    }
    let mtu_max = mtu_max(link);
    if link.mtu as usize > mtu_max {
        v.problem(
            format!("frames of MTU {} do not fit into one page", link.mtu),
            format!("ip link set dev {name} mtu {mtu_max}"),
        );
    }
    v.needs_up(link);
    if !machine.ipc_lock && machine.memlock.is_some_and(|limit| limit < UMEM_BYTES * u64::from(link.rx_queues)) {
        let have = machine.memlock.unwrap_or_default() >> 20;
        let need = (UMEM_BYTES * u64::from(link.rx_queues)) >> 20;
        v.problem(
            format!("{have} MiB may be locked and {need} MiB are needed for {} queue(s)", link.rx_queues),
            "ulimit -l unlimited (systemd: LimitMEMLOCK=infinity), or cap_ipc_lock among the capabilities",
        );
    }
    if generic && (link.loopback || link.kind.as_deref() == Some("veth")) {
        v.notes.push(format!(
            "frames above the MTU are dropped here: switch them off at the sender's end, `ethtool -K DEV tso off gso off` \
             (DEV: {})",
            if link.loopback { name } else { "the other end of the pair" }
        ));
    }
    v
}

/// Memory of one queue's frames, bytes: what may have to be locked.
const UMEM_BYTES: u64 = 32 << 20;

fn packet(machine: &Machine, Interface { link, .. }: &Interface) -> Verdict {
    let mut v = Verdict { rung: Rung::AfPacket, problems: Vec::new(), notes: Vec::new() };
    v.needs_capabilities(&[("cap_net_raw", machine.net_raw)]);
    if let Err(errno) = machine.packet_socket
        && machine.net_raw
    {
        v.problem(format!("packet sockets are refused ({errno})"), "a sandbox that allows AF_PACKET");
    }
    if link.loopback {
        v.problem("loopback carries no ARP", "another interface");
    }
    v.needs_up(link);
    v.notes.push("own address only: --address IP/LEN".into());
    v
}

fn tap(machine: &Machine) -> Verdict {
    let mut v = Verdict { rung: Rung::Tap, problems: Vec::new(), notes: Vec::new() };
    match machine.tun.map_err(Errno::from_raw_os_error) {
        Ok(()) => {}
        Err(Errno::NOENT | Errno::NODEV) => {
            v.problem("there is no /dev/net/tun", "modprobe tun (in a container: start it with --device /dev/net/tun)")
        }
        Err(Errno::ACCESS | Errno::PERM) => v.problem("/dev/net/tun may not be opened", "chmod 0666 /dev/net/tun"),
        Err(errno) => v.problem(format!("/dev/net/tun cannot be opened ({errno})"), "see the kernel's log"),
    }
    v.needs_capabilities(&[("cap_net_admin", machine.net_admin)]);
    v
}

fn epoll(machine: &Machine) -> Verdict {
    let mut v = Verdict { rung: Rung::Epoll, problems: Vec::new(), notes: Vec::new() };
    v.notes.push(format!("{} files may be open: one for each connection", machine.descriptors));
    if machine.first_free_port > 1 && !machine.bind_service {
        v.notes.push(format!(
            "ports below {} need a privilege: setcap cap_net_bind_service+ep {}",
            machine.first_free_port,
            program()
        ));
    }
    v
}

impl Verdict {
    fn problem(&mut self, what: impl Into<String>, mend: impl Into<String>) {
        self.problems.push(Problem { what: what.into(), mend: mend.into() });
    }

    fn needs_capabilities(&mut self, wanted: &[(&str, bool)]) {
        let missing: Vec<_> = wanted.iter().filter(|(_, has)| !has).map(|(name, _)| *name).collect();
        if missing.is_empty() {
            return;
        }
        let all: Vec<_> = wanted.iter().map(|(name, _)| *name).collect();
        let what = format!("{} missing", missing.join(", ").to_uppercase());
        self.problem(what, format!("setcap {}+ep {}", all.join(","), program()));
    }

    fn needs_up(&mut self, link: &Link) {
        if !link.up {
            self.problem(format!("{} is down", link.name), format!("ip link set dev {} up", link.name));
        } else if !link.running {
            self.notes.push(format!("{} has no carrier: nothing arrives until it has", link.name));
        }
    }
}

/// The path of this program, for commands to be copied.
fn program() -> String {
    std::env::current_exe().map_or_else(|_| "khamsin".into(), |path| path.display().to_string())
}

#[cfg(test)]
mod tests {
    use super::*;

    fn able() -> Machine {
        Machine {
            release: "6.18.0".into(),
            kernel: (6, 18),
            uid: 0,
            net_admin: true,
            net_raw: true,
            bpf: true,
            ipc_lock: true,
            initial_namespace: true,
            memlock: Some(8 << 20),
            descriptors: 20_000,
            first_free_port: 1024,
            bind_service: true,
            xdp_socket: Ok(()),
            packet_socket: Ok(()),
            tun: Ok(()),
            private_namespace: Ok(()),
        }
    }

    fn nic() -> Interface {
        let features = Some(XdpFeatures { native: true, zero_copy: true, multi_buffer: true });
        let link = Link {
            index: 2,
            name: "eth0".into(),
            mac: [2, 0, 0, 0, 0, 1],
            mtu: 1500,
            up: true,
            running: true,
            loopback: false,
            kind: Some("ice".into()),
            rx_queues: 4,
            tx_queues: 4,
        };
        Interface { link, features, program: None }
    }

    fn yes(machine: &Machine, interface: &Interface) -> Vec<Rung> {
        let mut verdicts = on_interface(machine, interface);
        verdicts.extend(without_interface(machine));
        assert!(verdicts.iter().flat_map(|v| &v.problems).all(|p| !p.what.is_empty() && !p.mend.is_empty()));
        verdicts.iter().filter(|v| v.is_yes()).map(|v| v.rung).collect()
    }

    #[test]
    fn a_good_machine_has_every_rung() {
        assert_eq!(yes(&able(), &nic()), Rung::ALL);
    }

    #[test]
    fn drivers_decide_the_upper_rungs() {
        let copy = Interface { features: Some(XdpFeatures { native: true, ..Default::default() }), ..nic() };
        assert_eq!(yes(&able(), &copy), Rung::ALL[1..]);
        let none = Interface { features: Some(XdpFeatures::default()), ..nic() };
        assert_eq!(yes(&able(), &none), Rung::ALL[2..]);
    }

    #[test]
    fn missing_capabilities_name_the_setcap_that_mends_them() {
        let user = Machine { net_admin: false, net_raw: false, bpf: false, uid: 1000, ..able() };
        assert_eq!(yes(&user, &nic()), [Rung::Epoll]);
        let mend = &on_interface(&user, &nic())[0].problems[0].mend;
        assert!(mend.starts_with("setcap cap_net_admin,cap_net_raw,cap_bpf+ep /"), "{mend}");
        let raw = Machine { net_raw: true, ..user };
        assert_eq!(yes(&raw, &nic()), [Rung::AfPacket, Rung::Epoll]);
    }

    #[test]
    fn the_rootless_namespace_has_packet_sockets_and_taps() {
        let inside = Machine { initial_namespace: false, ..able() };
        assert_eq!(yes(&inside, &nic()), [Rung::AfPacket, Rung::Tap, Rung::Epoll]);
    }

    #[test]
    fn what_is_in_the_way_of_xdp_is_named() {
        let attached = Interface { program: Some(7), ..nic() };
        let jumbo = Interface { link: Link { mtu: 9000, ..nic().link }, ..nic() };
        let lo = Link { name: "lo".into(), mtu: 65_536, loopback: true, kind: None, ..nic().link };
        assert!(!yes(&able(), &Interface { link: lo, ..nic() }).contains(&Rung::AfXdpGeneric));
        let old = Machine { kernel: (5, 4), ..able() };
        let locked = Machine { ipc_lock: false, ..able() };
        for (machine, interface, says) in [
            (&able(), &attached, "ip link set dev eth0 xdp off"),
            (&able(), &jumbo, "ip link set dev eth0 mtu 3"),
            (&old, &nic(), "newer kernel"),
            (&locked, &nic(), "ulimit -l"),
        ] {
            let verdicts = on_interface(machine, interface);
            assert!(verdicts[..3].iter().all(|v| v.problems.iter().any(|p| p.mend.contains(says))), "{says}");
            assert!(verdicts[3].is_yes());
        }
    }

    #[test]
    fn a_device_node_that_may_not_be_opened_spoils_tap_only() {
        let closed = Machine { tun: Err(Errno::ACCESS.raw_os_error()), ..able() };
        assert!(!yes(&closed, &nic()).contains(&Rung::Tap));
        let down = Interface { link: Link { up: false, ..nic().link }, ..nic() };
        assert_eq!(yes(&able(), &down), [Rung::Tap, Rung::Epoll]);
    }
}
