"""What size the segments of a server are: mss.py ADDRESS PORT. Reads /big over HTTP and says, as the kernel counted it
(TCP_INFO), `takes N` (what the server's SYN|ACK allows) and `sends N` (the segments that came)."""

import socket
import struct
import sys

TCP_INFO = 11

s = socket.create_connection((sys.argv[1], int(sys.argv[2])), timeout=20)
s.sendall(b"GET /big HTTP/1.1\r\nHost: x\r\nConnection: close\r\n\r\n")
total = 0
while part := s.recv(1 << 16):
    total += len(part)
    if total > 2_000_000:
        break
info = s.getsockopt(socket.IPPROTO_TCP, TCP_INFO, 104)
takes, sends = struct.unpack("=II", info[16:24])
print(f"takes {takes} sends {sends}")
