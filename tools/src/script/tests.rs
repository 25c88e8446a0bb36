use super::*;

const SCRIPT: &str = "\
# RFC 9293 3.5
# A handshake: what is said, and nothing else.
# ip: v4
# sysctl: net.ipv4.tcp_timestamps=0
# linux: differs — it counts in other units
+0 < S 0:0(0) win 65535 <mss 1460,sackOK,nop,nop,nop,wscale 7>
# The answer.
+0~+.002 > S. 0:0(0) ack 1 win 1~65535 <mss *,...>
+.000001 < [ce,badsum] PE. 1:11(10) ack 1 win 10 urg 3 <TS val 1 ecr *,sack 1:2 3:4,opt 30 0aff,eol>
+0 accept
1.5 read 10
+0 expect eof
* > R. 1:1(0) ack 11
+0 < icmp unreachable frag_needed mtu 1300 [1:1461(1460)]
+3 silence
+3 anything
";

#[test]
fn what_is_written_reads_back() {
    let script = Script::parse("a.pkt", SCRIPT).unwrap();
    let text = script.to_string();
    let again = Script::parse("a.pkt", &text).unwrap();
    assert_eq!(script.header, again.header);
    let parts = |s: &Script| s.lines.iter().map(|l| (l.when.clone(), l.event.clone())).collect::<Vec<_>>();
    assert_eq!(parts(&script), parts(&again));
    assert_eq!(text, again.to_string());
    assert_eq!(script.lines[1].comments, ["The answer."]);
    assert_eq!(script.header.linux, Linux::Differs("it counts in other units".to_owned()));
}

#[test]
fn a_mistake_is_named_with_its_line() {
    let cases = [
        ("+0 < S 0:0(0)", "1: a script begins with a comment"),
        ("# RFC 1\n\n+0 < S 0:0(1)", "3: `0:0(1)`: 0 and 1 make 1"),
        ("# RFC 1\n+0~+1 accept", "2: only what the server sends"),
        ("# RFC 1\n* accept", "2: only what the server sends"),
        ("# RFC 1\n+x accept", "2: `x` is no time"),
        ("# RFC 1\n+0 jump", "2: `jump` is neither"),
        ("# RFC 1\n+0 > Q 0:0(0)", "2: `Q`: flags are"),
        ("# RFC 1\n+0 < S 0:0(0) <mss *>", "2: `*` is for"),
        ("# RFC 1\n+0 < . 0:0(0)", "2: `ack N` and the flag"),
        ("# RFC 1\n+0 > [badsum] . 0:0(0) ack 1", "2: ICMP, `badsum`"),
        ("# RFC 1\n+0 < . 0:0(0) ack 1 <foo>", "2: `foo` is no option"),
        ("# RFC 1\n# linux: differs", "2: `# linux:` wants"),
        ("# RFC 1\n# only this", "2: a script without"),
    ];
    for (text, message) in cases {
        let error = Script::parse("a.pkt", text).unwrap_err().to_string();
        assert!(error.starts_with(&format!("a.pkt:{message}")), "{error}");
    }
}

fn run(lines: &str) -> Result<Vec<Report>, Box<Mismatch>> {
    let handshake =
        "# RFC 9293 3.5\n+0 < S 0:0(0) win 65535 <mss 1000>\n+0 > S. 0:0(0) ack 1 <...>\n+.1 < . 1:1(0) ack 1\n";
    run_virtual(&Script::parse("a.pkt", &format!("{handshake}{lines}")).unwrap(), false)
}

#[test]
fn a_server_that_does_what_it_should_passes() {
    let reports =
        run("+0 accept\n+0 < P. 1:6(5) ack 1\n+0~+.05 > . 1:1(0) ack 6\n+0 read 5\n+0 write 5\n+0 > P. 1:6(5) ack 6\n+.1 < . 6:6(0) ack 6\n")
            .unwrap();
    assert_eq!(reports.len(), 2, "over both versions of IP");
    assert!(reports[0].trace.iter().any(|line| line == ".1 > P. 1:6(5) ack 6 win 65530"), "{:#?}", reports[0].trace);
}

#[test]
fn every_way_to_fail_is_found() {
    let cases = [
        ("+0 accept\n+0 accept", "there is no new connection"),
        ("+0 accept\n+0 read 5", "only 0 bytes to read"),
        ("+0 accept\n+0 expect eof", "no end yet"),
        ("+0 accept\n+0 expect reset", "the connection lives"),
        ("+0 read 5", "`accept` comes before"),
        ("+0 accept\n+0 write 5\n+0 silence", "what nobody asked for"),
        ("+0 accept\n+0 write 5", "behind the last line"),
        ("+0 accept\n+0 write 5\n+0 > . 1:5(4) ack 1", "other sequence numbers"),
        ("+0 accept\n+0 write 5\n+0 > . 1:6(5) ack 2", "another acknowledgement"),
        ("+0 accept\n+0 write 5\n+0 > F. 1:6(5) ack 1", "other flags"),
        ("+0 accept\n+0 write 5\n+0 > . 1:6(5) ack 1 win 3", "a window of"),
        ("+0 accept\n+0 write 5\n+0 > . 1:6(5) ack 1 <sackOK>", "no option `sackOK`"),
        ("+0 accept\n+0 write 5\n+.1 > . 1:6(5) ack 1", "too early"),
        ("+0 > . 1:6(5) ack 1", "nothing came"),
        ("+0 < R 1:1(0)\n+0 accept\n+0 write 5", "the connection is over: reset by the peer"),
    ];
    for (lines, message) in cases {
        let mismatch = run(lines).expect_err(lines);
        assert!(mismatch.to_string().contains(message), "{mismatch}");
    }
}
