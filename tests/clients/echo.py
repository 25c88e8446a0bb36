"""Clients of an echo server on the kernel's own sockets: echo.py CASE HOST PORT [NUMBER]. Exit 0: everything came back right."""

import hashlib
import os
import random
import select
import socket
import struct
import sys
import threading
import time

LIMIT_S = 60


def connect(host, port, receive_buffer=None, local_port=None):
    family = socket.AF_INET6 if ":" in host else socket.AF_INET
    s = socket.socket(family, socket.SOCK_STREAM)
    s.settimeout(LIMIT_S)
    if receive_buffer:
        # Before the handshake: the window scale follows from it.
        s.setsockopt(socket.SOL_SOCKET, socket.SO_RCVBUF, receive_buffer)
    if local_port:
        s.setsockopt(socket.SOL_SOCKET, socket.SO_REUSEADDR, 1)
        s.bind(("", local_port))
    s.connect((host, port))
    return s


def receive_all(s):
    parts = []
    while part := s.recv(1 << 16):
        parts.append(part)
    return b"".join(parts)


def receive_exactly(s, n):
    parts = []
    while n and (part := s.recv(n)):
        parts.append(part)
        n -= len(part)
    if n:
        raise SystemExit(f"the stream ended {n} bytes early")
    return b"".join(parts)


def same(got, wanted, what):
    if got != wanted:
        at = next((i for i, (a, b) in enumerate(zip(got, wanted)) if a != b), min(len(got), len(wanted)))
        raise SystemExit(f"{what}: {len(got)} bytes instead of {len(wanted)}, the first difference at {at}")


def bytewise(host, port):
    """One byte a segment, each awaited; then many without waiting; then the end of our half."""
    s = connect(host, port)
    s.setsockopt(socket.IPPROTO_TCP, socket.TCP_NODELAY, 1)
    for i in range(500):
        s.sendall(bytes([i % 251]))
        same(receive_exactly(s, 1), bytes([i % 251]), f"byte {i}")
    sent = random.Random(1).randbytes(3000)
    for i in range(len(sent)):
        s.sendall(sent[i:i + 1])
    s.shutdown(socket.SHUT_WR)
    same(receive_all(s), sent, "after the half-close")


def reset(host, port):
    """Resets in several states; the server must live on, and serve the same port pair again at once."""
    linger = struct.pack("ii", 1, 0)
    for i in range(50):
        s = connect(host, port)
        if i % 3:
            s.sendall(b"x" * 5000 * (i % 3))
        if i % 2:
            receive_exactly(s, 1) if i % 3 else None
        s.setsockopt(socket.SOL_SOCKET, socket.SO_LINGER, linger)
        s.close()
    for i in range(20):
        s = connect(host, port, local_port=34567)
        s.sendall(b"again %d" % i)
        same(receive_exactly(s, len(b"again %d" % i)), b"again %d" % i, "after a reset, from the same port")
        s.setsockopt(socket.SOL_SOCKET, socket.SO_LINGER, linger)
        s.close()


def half_close(host, port):
    """Our FIN right behind the data: everything comes back, then the server's FIN."""
    for size in (0, 1, 1459, 1460, 1461, 100_000):
        s = connect(host, port)
        sent = random.Random(size).randbytes(size)
        s.sendall(sent)
        s.shutdown(socket.SHUT_WR)
        same(receive_all(s), sent, f"{size} bytes")
        s.close()


def slow(host, port):
    """A reader with a small window that stops reading: the server's window closes, nobody loses a byte, nobody spins."""
    s = connect(host, port, receive_buffer=4096)
    sent = random.Random(2).randbytes(2_000_000)
    s.setblocking(False)
    at, got, deadline = 0, [], time.monotonic() + LIMIT_S
    pauses = [0, 65_536, 400_000]  # where reading stops for a while, long enough for a window probe
    total = 0
    closed = False
    while total < len(sent):
        if time.monotonic() > deadline:
            raise SystemExit(f"stuck with {at} sent and {total} received")
        if pauses and total >= pauses[0]:
            pauses.pop(0)
            until = time.monotonic() + 1.2
            while time.monotonic() < until and at < len(sent):
                _, w, _ = select.select([], [s], [], 0.1)
                if w:
                    try:
                        at += s.send(sent[at:at + 65536])
                    except BlockingIOError:
                        pass
            continue
        r, w, _ = select.select([s], [s] if at < len(sent) else [], [], 5)
        if w:
            at += s.send(sent[at:at + 65536])
        elif at == len(sent) and not closed:
            s.shutdown(socket.SHUT_WR)
            closed = True
        if r:
            part = s.recv(3000)
            if not part:
                raise SystemExit(f"the stream ended at {total}")
            got.append(part)
            total += len(part)
    same(b"".join(got), sent, "the slow reader")


def both_ways(host, port, size):
    """`size` bytes both ways at once."""
    s = connect(host, port)
    chunk = random.Random(3).randbytes(1 << 20)
    s.setblocking(False)
    sent, got = 0, 0
    out, back = hashlib.sha256(), hashlib.sha256()
    deadline = time.monotonic() + LIMIT_S
    while got < size:
        if time.monotonic() > deadline:
            raise SystemExit(f"stuck with {sent} sent and {got} received")
        r, w, _ = select.select([s], [s] if sent < size else [], [], 5)
        if w:
            at = sent % len(chunk)
            n = s.send(chunk[at:at + min(1 << 18, size - sent)])
            out.update(chunk[at:at + n])
            sent += n
            if sent == size:
                s.shutdown(socket.SHUT_WR)
        if r:
            part = s.recv(1 << 18)
            if not part:
                raise SystemExit(f"the stream ended at {got}")
            back.update(part)
            got += len(part)
    if s in select.select([s], [], [], 10)[0] and s.recv(1) != b"":
        raise SystemExit("more bytes than were sent")
    if out.digest() != back.digest():
        raise SystemExit("other bytes than were sent")


def many(host, port, count):
    """`count` connections at once, each with bytes of its own, served in several rounds."""
    sockets = [connect(host, port) for _ in range(count)]
    for round in range(3):
        for i, s in enumerate(sockets):
            s.sendall(b"round %d connection %d;" % (round, i) * (1 + i % 50))
        for i, s in enumerate(sockets):
            wanted = b"round %d connection %d;" % (round, i) * (1 + i % 50)
            same(receive_exactly(s, len(wanted)), wanted, f"connection {i}")
    for s in sockets:
        s.shutdown(socket.SHUT_WR)
    for i, s in enumerate(sockets):
        same(receive_all(s), b"", f"the end of connection {i}")


def lines(host, port):
    """With --line: each line is answered, however it is cut."""
    s = connect(host, port)
    s.sendall(b"hel")
    time.sleep(0.05)
    s.sendall(b"lo\nwor")
    same(receive_exactly(s, len(b"You said: hello\n")), b"You said: hello\n", "the first line")
    s.sendall(b"ld\r\n\n")
    s.shutdown(socket.SHUT_WR)
    rest = receive_all(s)
    same(rest, b"You said: world\nYou said: \n", "the second and third line")


def hop(host, port, count):
    """Flows whose sending process hops between CPUs; where transmit queues follow CPUs, each flow changes its queue."""
    cpus = sorted(os.sched_getaffinity(0))
    sockets = [connect(host, port) for _ in range(count)]
    for round in range(60):
        os.sched_setaffinity(0, {cpus[round % len(cpus)]})
        wanted = random.Random(round).randbytes(1 + 97 * round)
        for s in sockets:
            s.sendall(wanted)
        for i, s in enumerate(sockets):
            same(receive_exactly(s, len(wanted)), wanted, f"connection {i} in round {round}")
    for s in sockets:
        s.shutdown(socket.SHUT_WR)
    for i, s in enumerate(sockets):
        same(receive_all(s), b"", f"the end of connection {i}")
    # A transfer under way while its sender hops.
    failures = []

    def transfer():
        try:
            both_ways(host, port, 8_000_000)
        except BaseException as e:  # SystemExit would end this thread alone, unheard
            failures.append(e)

    thread = threading.Thread(target=transfer)
    thread.start()
    turn = 0
    while thread.is_alive():
        turn += 1
        for task in os.listdir("/proc/self/task"):
            try:
                os.sched_setaffinity(int(task), {cpus[turn % len(cpus)]})
            except ProcessLookupError:
                pass
        time.sleep(0.01)
    if failures:
        raise SystemExit(f"a transfer under way: {failures[0]!r}")
    print(f"moved {60 + turn} times")


CASES = {"hop": hop, "bytewise": bytewise, "reset": reset, "half-close": half_close, "slow": slow, "both-ways": both_ways,
         "many": many, "lines": lines}

if __name__ == "__main__":
    CASES[sys.argv[1]](sys.argv[2], int(sys.argv[3]), *map(int, sys.argv[4:]))
