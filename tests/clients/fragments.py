"""A TCP client whose request comes in IP fragments: fragments.py INTERFACE ADDRESS PORT.

Speaks TCP by hand over a packet socket, from an address that this kernel does not have, so that nobody else answers. The
request goes to an echo server in fragments, the last one first, and its own bytes must come back. Says `echoed N bytes`."""

import ipaddress
import socket
import struct
import sys
import time

ETH_P_ALL, PACKET_OUTGOING = 3, 4
FIN, SYN, RST, PSH, ACK = 1, 2, 4, 8, 16


def ones(data):
    if len(data) % 2:
        data += b"\0"
    total = sum(struct.unpack(f"!{len(data) // 2}H", data))
    while total >> 16:
        total = (total & 0xFFFF) + (total >> 16)
    return total


class Peer:
    def __init__(self, interface, target, port):
        self.wire = socket.socket(socket.AF_PACKET, socket.SOCK_RAW, socket.htons(ETH_P_ALL))
        self.wire.bind((interface, 0))
        self.wire.settimeout(5)
        self.mac = self.wire.getsockname()[4]
        self.target = ipaddress.ip_address(target)
        self.v6 = self.target.version == 6
        # The last address but five of a /24: nobody's.
        base = int(self.target) & ~0xFF
        self.own = ipaddress.ip_address(base + 250) if not self.v6 else ipaddress.IPv6Address(base + 250)
        self.ports = struct.pack("!HH", 40000 + int(time.time()) % 20000, port)
        self.seq, self.ack = 1000, 0
        self.server_mac = self.resolve()

    def resolve(self):
        """The server's MAC, as the kernel of this namespace knows it: it has been asked by a ping before."""
        import subprocess
        family = "-6" if self.v6 else "-4"
        said = subprocess.run(["ip", family, "neigh", "show", str(self.target)], capture_output=True, text=True).stdout
        words = said.split()
        return bytes.fromhex(words[words.index("lladdr") + 1].replace(":", ""))

    def segment(self, flags, payload=b"", options=b""):
        offset = (20 + len(options)) // 4 << 4
        head = self.ports + struct.pack("!IIBBHHH", self.seq, self.ack, offset, flags, 65000, 0, 0) + options
        tcp = head + payload
        pseudo = self.own.packed + self.target.packed + struct.pack("!II", len(tcp), 6)
        tcp = tcp[:16] + struct.pack("!H", 0xFFFF ^ ones(pseudo + tcp)) + tcp[18:]
        self.seq += len(payload) + (1 if flags & (SYN | FIN) else 0)
        return tcp

    def frame(self, content, offset=0, more=False, number=None):
        if self.v6:
            header = 6
            if number is not None:
                content = struct.pack("!BBHI", 6, 0, offset | more, number) + content
                header = 44
            ip = struct.pack("!IHBB", 0x60000000, len(content), header, 64) + self.own.packed + self.target.packed
            kind = 0x86DD
        else:
            word = offset // 8 | (0x2000 if more else 0)
            ip = struct.pack("!BBHHHBBH", 0x45, 0, 20 + len(content), number or 0, word, 64, 6, 0)
            ip += self.own.packed + self.target.packed
            ip = ip[:10] + struct.pack("!H", 0xFFFF ^ ones(ip)) + ip[12:]
            kind = 0x0800
        return self.server_mac + self.mac + struct.pack("!H", kind) + ip + content

    def send(self, tcp):
        self.wire.send(self.frame(tcp))

    def send_in_parts(self, tcp, size, number):
        starts = list(range(0, len(tcp), size))
        for start in reversed(starts):
            part = tcp[start:start + size]
            self.wire.send(self.frame(part, start, start != starts[-1], number))

    def receive(self):
        """Flags, sequence number and payload of the next segment of this connection."""
        until = time.monotonic() + 5
        while time.monotonic() < until:
            data, address = self.wire.recvfrom(1 << 17)
            if address[2] == PACKET_OUTGOING:
                continue
            kind, packet = struct.unpack("!H", data[12:14])[0], data[14:]
            if kind == (0x86DD if self.v6 else 0x0800):
                end = 40 + struct.unpack("!H", packet[4:6])[0] if self.v6 else struct.unpack("!H", packet[2:4])[0]
                ip_len, protocol = (40, packet[6]) if self.v6 else (20, packet[9])
                tcp = packet[ip_len:end]
                if protocol == 6 and tcp[:4] == self.ports[2:] + self.ports[:2]:
                    seq, flags, header = struct.unpack("!I", tcp[4:8])[0], tcp[13], tcp[12] >> 4 << 2
                    return flags, seq, tcp[header:]
        raise TimeoutError("no segment for five seconds")


def main(interface, target, port):
    peer = Peer(interface, target, port)
    peer.send(peer.segment(SYN, options=struct.pack("!BBH", 2, 4, 1460)))
    flags, seq, _ = peer.receive()
    assert flags == SYN | ACK, flags
    peer.ack = seq + 1
    peer.send(peer.segment(ACK))
    echoed = 0
    for number, (length, size) in enumerate([(1200, 256), (1200, 1192), (9000, 1448), (40000, 1448)]):
        text = bytes((i * 7 + number) % 251 for i in range(length))
        peer.send_in_parts(peer.segment(PSH | ACK, text), size, 1000 + number)
        got = b""
        while len(got) < length:
            flags, seq, payload = peer.receive()
            assert not flags & RST, "a reset"
            if payload and seq == peer.ack:
                got += payload
                peer.ack = (peer.ack + len(payload)) & 0xFFFFFFFF
                peer.send(peer.segment(ACK))
        assert got == text, f"{len(got)} bytes, or others"
        echoed += length
    peer.send(peer.segment(RST | ACK))
    print(f"echoed {echoed} bytes")


if __name__ == "__main__":
    main(sys.argv[1], sys.argv[2], int(sys.argv[3]))
