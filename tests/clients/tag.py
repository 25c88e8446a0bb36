"""A wire that tags: tag.py PLAIN TAGGED VID, two interfaces of this namespace. Frames from PLAIN leave through TAGGED with an
802.1Q tag, frames from TAGGED must carry that tag and leave through PLAIN without it. Says `wired` when it runs; ends with
its parent's kill. For kernels that have no VLAN interfaces of their own."""

import select
import socket
import struct
import sys

SOL_PACKET, PACKET_AUXDATA, PACKET_VNET_HDR = 263, 8, 15
ETH_P_ALL, PACKET_OUTGOING = 3, 4
TP_STATUS_VLAN_VALID = 1 << 4
VNET_HEADER = "<BBHHHH"  # virtio_net_hdr: flags, gso_type, hdr_len, gso_size, csum_start, csum_offset
VNET_LEN = struct.calcsize(VNET_HEADER)
NEEDS_CSUM = 1


def open_on(interface):
    s = socket.socket(socket.AF_PACKET, socket.SOCK_RAW, socket.htons(ETH_P_ALL))
    s.setsockopt(SOL_PACKET, PACKET_AUXDATA, 1)
    # Unfinished checksums and super-frames pass through as they are, with a header that says so.
    s.setsockopt(SOL_PACKET, PACKET_VNET_HDR, 1)
    s.setsockopt(socket.SOL_SOCKET, socket.SO_RCVBUF, 16 << 20)
    s.setsockopt(socket.SOL_SOCKET, socket.SO_SNDBUF, 16 << 20)
    s.bind((interface, 0))
    return s


def receive(s):
    """Virtio header, frame and tag of the next frame that came in; None for one that went out."""
    data, control, _, address = s.recvmsg(VNET_LEN + (1 << 17), 256)
    if address[2] == PACKET_OUTGOING:
        return None
    tag = None
    for level, kind, value in control:
        if (level, kind) == (SOL_PACKET, PACKET_AUXDATA):
            status, _, _, _, _, tci, _ = struct.unpack("=IIIHHHH", value)
            if status & TP_STATUS_VLAN_VALID:
                tag = tci & 0xFFF
    return data[:VNET_LEN], data[VNET_LEN:], tag


def moved(header, by):
    """The virtio header of a frame whose headers have grown by so many bytes."""
    flags, gso, hdr_len, size, start, offset = struct.unpack(VNET_HEADER, header)
    return struct.pack(VNET_HEADER, flags, gso, hdr_len + by if gso else hdr_len, size,
                       start + by if flags & NEEDS_CSUM else start, offset)


def main(plain, tagged, vid):
    p, t = open_on(plain), open_on(tagged)
    tag = struct.pack("!HH", 0x8100, vid)
    untagged = 0
    print("wired", flush=True)
    while True:
        for s in select.select([p, t], [], [])[0]:
            if not (got := receive(s)):
                continue
            header, frame, seen = got
            try:
                if s is p:
                    t.send(moved(header, 4) + frame[:12] + tag + frame[12:])
                elif seen == vid:
                    p.send(header + frame)
                else:
                    untagged += 1
                    print(f"{untagged} frames without the tag, the last: {frame[:40].hex()}", file=sys.stderr, flush=True)
            except OSError as e:
                print(f"{len(frame)} bytes not passed on: {e}", file=sys.stderr, flush=True)


if __name__ == "__main__":
    main(sys.argv[1], sys.argv[2], int(sys.argv[3]))
