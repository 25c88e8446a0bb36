//! The link helper against the kernel, in namespaces of its own; what it did is checked with iproute2.

#![allow(clippy::unwrap_used)]

mod link_netns;

use core::net::IpAddr;
use khamsin_drivers::link::{self, Error, LinkEvent, NetNs, Watch};
use link_netns::Netns;
use std::os::fd::AsFd;

fn ip(text: &str) -> IpAddr {
    text.parse().unwrap()
}

/// The next event. The kernel tells of carriers from a work queue of its own, in its own time.
fn next(watch: &mut Watch) -> Option<LinkEvent> {
    for _ in 0..10 {
        if let Some(event) = watch.poll() {
            return Some(event);
        }
        let timeout = rustix::event::Timespec { tv_sec: 1, tv_nsec: 0 };
        let mut fds = [rustix::event::PollFd::new(&*watch, rustix::event::PollFlags::IN)];
        rustix::event::poll(&mut fds, Some(&timeout)).unwrap();
    }
    None
}

#[test]
fn veth_is_made_described_changed_and_removed() {
    let Some(ns) = Netns::new("veth_is_made_described_changed_and_removed") else { return };
    ns.run(|| {
        link::create_veth("kha", "khb", 2).unwrap();
        let made = link::by_name("kha").unwrap();
        assert_eq!((made.rx_queues, made.tx_queues), (2, 2));
        assert_eq!(made.kind.as_deref(), Some("veth"));
        assert_eq!(made.mtu, 1500);
        assert!(!made.up && !made.running && !made.loopback);
        assert_ne!(made.mac, [0; 6]);
        assert!(matches!(link::create_veth("kha", "khc", 1), Err(Error::Exists { name }) if name == "kha"));
        assert!(matches!(link::create_veth("khc", "khb", 1), Err(Error::Exists { name }) if name == "khb"));

        link::set_up("kha").unwrap();
        assert!(link::by_name("kha").unwrap().up);
        assert!(!link::by_name("kha").unwrap().running, "its far end is off");
        let mut watch = Watch::new("kha").unwrap();
        link::set_up("khb").unwrap();
        assert_eq!(next(&mut watch), Some(LinkEvent::Up));
        assert!(link::by_name("kha").unwrap().running && watch.link().running);
        link::set_mtu("kha", 3498).unwrap();
        link::set_mac("kha", [2, 0, 0, 0, 0, 7]).unwrap();
        let changed = link::by_name("kha").unwrap();
        assert_eq!((changed.mtu, changed.mac), (3498, [2, 0, 0, 0, 0, 7]));
        assert!(matches!(link::set_mtu("kha", 1), Err(Error::Refused { .. })));

        let names: Vec<String> = link::list().unwrap().into_iter().map(|l| l.name).collect();
        assert_eq!(names.len(), 3, "{names:?}");
        assert!(link::list().unwrap().iter().any(|l| l.loopback && l.name == "lo"));
        link::delete("kha").unwrap();
        assert!(matches!(link::by_name("khb"), Err(Error::NoSuchLink { .. })), "both ends go");
        assert!(matches!(link::delete("kha"), Err(Error::NoSuchLink { .. })));
    });
}

#[test]
fn addresses_are_added_without_detection_and_found_again() {
    let Some(ns) = Netns::new("addresses_are_added_without_detection_and_found_again") else { return };
    ns.run(|| {
        link::create_veth("kha", "khb", 1).unwrap();
        link::set_up("kha").unwrap();
        link::set_up("khb").unwrap();
        link::add_address("kha", ip("198.18.0.1"), 24).unwrap();
        link::add_address("kha", ip("fd00::1"), 64).unwrap();
        link::add_address("kha", ip("198.18.0.1"), 24).expect("there already: no error");
        let found = link::addresses("kha").unwrap();
        assert!(found.contains(&(ip("198.18.0.1"), 24)) && found.contains(&(ip("fd00::1"), 64)), "{found:?}");
        assert_eq!(link::kernel_owner(ip("fd00::1")).unwrap().as_deref(), Some("kha"));
        assert_eq!(link::kernel_owner(ip("198.18.0.2")).unwrap(), None);
        assert!(matches!(link::add_address("kha", ip("198.18.0.9"), 33), Err(Error::Refused { .. })));
        assert!(matches!(link::add_address("khz", ip("198.18.0.9"), 24), Err(Error::NoSuchLink { .. })));
    });
    let shown = ns.command(&["ip", "-6", "address", "show", "dev", "kha"]);
    assert!(shown.contains("fd00::1/64") && shown.contains("nodad"), "{shown}");
    let tentative = shown.lines().any(|line| line.contains("fd00::1") && line.contains("tentative"));
    assert!(!tentative, "{shown}");
}

#[test]
fn an_end_moves_to_another_namespace_and_under_a_bridge() {
    let test = "an_end_moves_to_another_namespace_and_under_a_bridge";
    let (Some(one), Some(two)) = (Netns::new(test), Netns::new(test)) else { return };
    one.command(&["ip", "link", "add", "khbr", "type", "bridge"]);
    one.run(|| {
        link::create_veth("kha", "khb", 1).unwrap();
        link::set_master("kha", "khbr").unwrap();
        link::move_to_netns("khb", NetNs::Fd(two.file().as_fd())).unwrap();
        assert!(matches!(link::by_name("khb"), Err(Error::NoSuchLink { .. })));
        assert_eq!(link::by_name("khbr").unwrap().kind.as_deref(), Some("bridge"));
        assert!(matches!(link::move_to_netns("kha", NetNs::Pid(u32::MAX / 2)), Err(Error::Refused { .. })));
    });
    two.run(|| link::by_name("khb").unwrap());
    assert!(one.command(&["ip", "link", "show", "kha"]).contains("master khbr"));
}

#[test]
fn watch_tells_what_happens_to_its_link_and_nothing_else() {
    let Some(ns) = Netns::new("watch_tells_what_happens_to_its_link_and_nothing_else") else { return };
    ns.run(|| {
        link::create_veth("kha", "khb", 1).unwrap();
        let mut watch = Watch::new("kha").unwrap();
        assert_eq!(watch.poll(), None);
        link::set_up("kha").unwrap();
        link::set_up("khb").unwrap();
        assert_eq!(next(&mut watch), Some(LinkEvent::Up));
        link::set_mtu("kha", 1400).unwrap();
        link::set_mtu("khb", 1300).unwrap();
        assert_eq!(next(&mut watch), Some(LinkEvent::MtuChanged(1400)));
        assert_eq!(watch.poll(), None);
        link::set_down("khb").unwrap();
        assert_eq!(next(&mut watch), Some(LinkEvent::Down));
        link::set_mac("kha", [2, 0, 0, 0, 0, 9]).unwrap();
        assert_eq!(next(&mut watch), Some(LinkEvent::MacChanged([2, 0, 0, 0, 0, 9])));
        link::delete("khb").unwrap();
        assert_eq!(next(&mut watch), Some(LinkEvent::Removed));
        assert_eq!(watch.poll(), None);
        assert!(matches!(Watch::new("kha"), Err(Error::NoSuchLink { .. })));
    });
}

#[test]
fn watch_tells_another_number_of_queues_when_asked() {
    let Some(ns) = Netns::new("watch_tells_another_number_of_queues_when_asked") else { return };
    ns.run(|| link::create_veth("kha", "khb", 2).unwrap());
    let mut watch = ns.run(|| Watch::new("kha").unwrap());
    let mut told = || {
        ns.run(|| watch.check_queues());
        watch.poll()
    };
    assert_eq!(told(), None);
    ns.command(&["ethtool", "-L", "kha", "rx", "1"]);
    assert_eq!((told(), told()), (Some(LinkEvent::QueuesChanged(1)), None));
    ns.command(&["ethtool", "-L", "kha", "rx", "2"]);
    assert_eq!((told(), told()), (Some(LinkEvent::QueuesChanged(2)), None));
}

#[test]
fn watch_survives_more_news_than_its_socket_holds() {
    let Some(ns) = Netns::new("watch_survives_more_news_than_its_socket_holds") else { return };
    ns.run(|| {
        link::create_veth("kha", "khb", 1).unwrap();
        let mut watch = Watch::new("kha").unwrap();
        for mtu in 1300..1700 {
            link::set_mtu("kha", mtu).unwrap();
        }
        let mut last = None;
        while let Some(event) = watch.poll() {
            last = Some(event);
        }
        assert_eq!(last, Some(LinkEvent::MtuChanged(1699)), "the end is told, whatever was lost before");
        link::delete("kha").unwrap();
        assert_eq!(watch.poll(), Some(LinkEvent::Removed));
    });
}
