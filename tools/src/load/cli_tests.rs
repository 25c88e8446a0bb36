use super::*;
use clap::CommandFactory;

fn job(line: &str) -> Result<Job, String> {
    Cli::parse_from(format!("khamsin-load {line}").split(' ')).job()
}

#[test]
fn the_command_line_holds_together() {
    Cli::command().debug_assert();
}

#[test]
fn targets_are_read() {
    let target = job("http://198.18.0.2/a?b=c").unwrap().plan.target;
    assert_eq!(target.address, "198.18.0.2:80".parse().unwrap());
    let Question::Get { host, path, status, .. } = target.question else { panic!() };
    assert_eq!((host.as_str(), path.as_str(), status), ("198.18.0.2", "/a?b=c", 200));
    let target = job("http://[fd00::2]:8080").unwrap().plan.target;
    assert_eq!(target.address, "[fd00::2]:8080".parse().unwrap());
    assert!(matches!(target.question, Question::Get { path, .. } if path == "/"));
    let target = job("echo://198.18.0.2:7 --size 9").unwrap().plan.target;
    assert_eq!(target.question, Question::Echo { size: 9 });
    for wrong in ["198.18.0.2", "ftp://198.18.0.2/", "echo://198.18.0.2", "echo://198.18.0.2:7/path", "http:///x"] {
        assert!(job(wrong).is_err(), "{wrong}");
    }
}

#[test]
fn sources_are_counted_out() {
    let of = |text| addresses(text).unwrap().iter().map(IpAddr::to_string).collect::<Vec<_>>();
    assert_eq!(of("198.18.0.5"), ["198.18.0.5"]);
    assert_eq!(of("198.18.0.66/30"), ["198.18.0.64", "198.18.0.65", "198.18.0.66", "198.18.0.67"]);
    assert_eq!(of("198.18.1.0/30"), ["198.18.1.1", "198.18.1.2", "198.18.1.3"]);
    assert_eq!(of("198.18.0.0/15").len(), 64);
    assert_eq!(of("fd00::/126"), ["fd00::", "fd00::1", "fd00::2", "fd00::3"]);
    assert!(addresses("198.18.0.1/33").is_err() && addresses("here").is_err());
}

#[test]
fn nonsense_is_refused_with_a_sentence() {
    for wrong in [
        "http://198.18.0.2/ -c 0",
        "http://198.18.0.2/ --seconds 0",
        "http://198.18.0.2/ -c 9000000",
        "http://198.18.0.2/ -s 3600 --warm-up 600",
    ] {
        assert!(job(wrong).is_err_and(|sentence| sentence.contains(' ')), "{wrong}");
    }
}

#[test]
fn frames_need_an_interface_and_addresses() {
    let of = |line: &str| job(&format!("http://198.18.0.2/ --backend {line}"));
    assert!(of("af-xdp --interface v0").is_err_and(|s| s.contains("--source")));
    assert!(of("af-xdp --source 198.18.1.1").is_err_and(|s| s.contains("--interface")));
    assert!(of("af-xdp --interface v0 --source 198.18.0.0/28").is_err_and(|s| s.contains("server's address")));
    assert!(of("af-xdp --interface v0 --source 198.18.1.1 -t 2").is_err_and(|s| s.contains("one thread")));
    let job = of("tap --source 198.18.1.1 --mac 02:00:00:00:00:0a").unwrap();
    let Backend::Frames { device, link } = job.backend else { panic!() };
    assert_eq!(device, Device::Tap { interface: TAP_NAME.into(), server: "198.18.0.2".parse().unwrap() });
    assert_eq!((link.next_hop.to_string().as_str(), link.mac), ("198.18.0.2", Some([2, 0, 0, 0, 0, 10])));
    assert!(mac_address("02:00:00:00:00").is_err() && mac_address("here").is_err());
}
