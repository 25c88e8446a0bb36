//! What the stack counts. Every drop has a counter, every counter a test that makes it move.

macro_rules! counters {
    ($($(#[$doc:meta])* $name:ident,)*) => {
        /// Running totals of one shard.
        #[derive(Clone, Copy, PartialEq, Eq, Debug, Default)]
        pub struct Counters {
            $($(#[$doc])* pub $name: u64,)*
        }

        impl Counters {
            /// Every counter by name, in the order of their declaration.
            pub fn iter(&self) -> impl Iterator<Item = (&'static str, u64)> {
                [$((stringify!($name), self.$name)),*].into_iter()
            }

            /// Adds another shard's totals to these.
            pub fn add(&mut self, other: &Counters) {
                $(self.$name += other.$name;)*
            }
        }
    };
}

counters! {
    /// Frames taken from the queue.
    rx_frames,
    /// Frames put on the queue.
    tx_frames,
    /// Frames dropped: shorter than their headers say, or not Ethernet II.
    drop_malformed,
    /// Frames dropped: a protocol or EtherType that is not ours to answer.
    drop_not_ours,
    /// Frames dropped: addressed to a MAC, IP or group that is not ours.
    drop_other_address,
    /// Frames dropped: IPv4 header checksum wrong.
    drop_ip_checksum,
    /// Frames dropped: TCP, ICMP or ICMPv6 checksum wrong.
    drop_l4_checksum,
    /// Frames dropped: IP fragments that belong to no packet of ours (tiny, too long, odd), or to one already given up.
    drop_fragment,
    /// Frames dropped: a source address that nobody can be answered at (unspecified, multicast, broadcast, our own).
    drop_martian,
    /// ARP requests answered.
    arp_replies,
    /// ARP requests sent, announcements included.
    arp_requests,
    /// IPv6 neighbour solicitations answered.
    nd_replies,
    /// IPv6 neighbour solicitations and unsolicited advertisements sent.
    nd_requests,
    /// ICMP and ICMPv6 echo requests answered.
    echo_replies,
    /// ICMP and ICMPv6 messages not answered because of the rate limit.
    icmp_limited,
    /// IP fragments to us.
    frag_received,
    /// IP packets put together from fragments.
    frag_reassembled,
    /// IP fragments that came twice.
    frag_duplicates,
    /// IP packets given up because two of their fragments contradicted each other (RFC 5722).
    frag_overlaps,
    /// IP packets given up because a fragment did not come in time.
    frag_expired,
    /// IP packets given up because the places to put them together were all in use.
    frag_evicted,
    /// IP fragments sent: echo replies that are longer than the link carries.
    frag_sent,
    /// ICMP errors sent: parameter problems over IPv6 (RFC 4443 3.4), fragments that did not come in time.
    icmp_errors_sent,
    /// ICMP errors about segments of flows that nobody has.
    icmp_unknown,
    /// ICMP errors whose quoted sequence number is not in flight (RFC 5927 4.1).
    icmp_outside,
    /// ICMP errors believed and remembered: they shorten the patience with a peer that does not answer.
    icmp_soft,
    /// Half-open connections ended by an ICMP error that quotes their SYN|ACK exactly.
    icmp_half_open_ended,
    /// ICMP errors believed that made a connection's segments smaller (RFC 1191, RFC 8201).
    pmtu_lowered,
    /// ICMP errors about segments too long that changed nothing: not less than is known, or less than may be.
    pmtu_ignored,
    /// Segments made smaller because the longer ones were never answered (RFC 4821, RFC 8899).
    pmtu_black_holes,
    /// Segments made larger again, because what was known of the path is old.
    pmtu_raised,
    /// SYNs accepted into the SYN table.
    syn_received,
    /// SYN|ACKs sent again.
    syn_retransmitted,
    /// Half-open connections given up: no ACK came in time.
    syn_expired,
    /// SYNs answered with a cookie, because the SYN table is full or their source's share of it.
    cookies_sent,
    /// Handshakes finished with a cookie.
    cookies_accepted,
    /// Segments dropped, rather than reset, because their flow was sent a cookie that has not come back: the first one is
    /// lost or late, and comes again.
    drop_cookie_awaited,
    /// Handshakes whose ACK came while every connection slot was taken.
    drop_accept_full,
    /// SYNs dropped because every connection slot is taken: the peer will ask again.
    drop_syn_shed,
    /// SYNs and handshakes dropped because their source holds all the connections that one source may hold.
    drop_source_limit,
    /// SYNs refused because the server drains.
    drop_draining,
    /// Connections established.
    accepted,
    /// Connections parked.
    parked,
    /// Parked connections woken: by a segment, by a deadline, for a drain.
    woken,
    /// Segments to parked connections that did not wake them, and times that their deadlines were put off, because too many
    /// live connections were busy.
    drop_wake_full,
    /// Orphans reset, because others needed their room and their peers had been silent for some seconds.
    shed_orphans,
    /// Segments to parked connections dropped because too many came that the gate would stop.
    drop_wake_limit,
    /// Keep-alive probes of peers answered while the connection stayed parked.
    parked_probes,
    /// Connections closed in good order.
    closed_finished,
    /// Connections reset by the peer.
    closed_reset,
    /// Connections aborted by the application.
    closed_aborted,
    /// Connections given up because the peer stopped answering.
    closed_timed_out,
    /// Connections ended by the drain.
    closed_drained,
    /// Connections reset because code panicked over them.
    closed_panicked,
    /// RSTs sent to segments that belong to no connection.
    rst_sent,
    /// Segments to no connection left unanswered because of the rate limit on RST.
    rst_limited,
    /// Challenge ACKs sent (RFC 5961).
    challenge_acks,
    /// Challenge ACKs withheld by their rate limit.
    challenge_limited,
    /// Segments stopped by the gate: an inexact RST in the window (RFC 5961 3.2).
    gate_rst_inexact,
    /// Segments stopped by the gate: an RST outside the window.
    gate_rst_outside,
    /// Segments stopped by the gate: a SYN on a connection (RFC 5961 4.2).
    gate_syn,
    /// Segments stopped by the gate: no ACK flag.
    gate_no_ack,
    /// Segments stopped by the gate: acknowledge what was never sent, or lie too far in the past (RFC 5961 5.2).
    gate_ack_range,
    /// Segments stopped by the gate: further than 2^30 from the receive window.
    gate_far_sequence,
    /// Segments stopped by the gate: their timestamp is older than what the peer has sent since (PAWS, RFC 7323 5).
    gate_paws,
    /// Acknowledgements that later ones had overtaken, and that were heard for the blocks they report alone.
    acks_overtaken,
    /// Segments stopped by the gate: wholly outside the receive window.
    gate_outside_window,
    /// Segments whose payload was cut: it lies beyond the receive window, or behind the FIN.
    gate_trimmed,
    /// FINs not believed: text in front of them lies beyond the window, or text behind them has come.
    gate_fin_held,
    /// Segments with text behind a hole.
    rx_out_of_order,
    /// Segments with text that had come before.
    rx_duplicate,
    /// Segments of which some was not taken because the pool for held text gave no block.
    rx_hold_exhausted,
    /// Segments not taken because they would make one hole too many.
    rx_too_many_holes,
    /// Ranges that were held behind holes, perhaps reported, and given up for text that was expected (RFC 2018 8).
    rx_reneged,
    /// Connections that gave up what they held behind holes, because another could hold nothing.
    rx_pruned,
    /// Times that a connection's receive window grew.
    rx_window_grown,
    /// Times that smoltcp was fed with text that had waited.
    rx_handed_on,
    /// Bytes of payload that smoltcp took into receive buffers.
    rx_payload_bytes,
    /// Bytes of payload sent for the first time.
    tx_payload_bytes,
    /// Segments sent again.
    retransmitted,
    /// Retransmission timeouts.
    rto_expired,
    /// Fast retransmits entered.
    fast_retransmits,
    /// Probes for the loss of a flight's tail (RFC 8985 7).
    tail_probes,
    /// Reductions of a congestion window taken back, because nothing had been lost (DSACK, RFC 3708; Eifel, RFC 3522; F-RTO,
    /// RFC 5682).
    reductions_undone,
    /// Keep-alive probes sent.
    keep_alives,
    /// Zero-window probes sent.
    window_probes,
    /// Duplicate acknowledgements received.
    dup_acks,
    /// Pure ACKs sent.
    acks_sent,
    /// Connections that entered TIME-WAIT.
    time_wait_entered,
    /// TIME-WAIT entries pushed out before their time because the table was full.
    time_wait_evicted,
    /// Times a segment could not be sent because the queue had no free frame.
    tx_exhausted,
    /// Times the block pool could not give a connection more send space.
    store_exhausted,
    /// Segments passed to another shard because this one does not know their flow.
    stray_sent,
    /// Segments of other shards that this one knew.
    stray_claimed,
    /// Segments dropped because the next shard's stray ring was full.
    drop_stray_full,
}
