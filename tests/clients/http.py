"""HTTP over a bare socket, byte for byte: http.py CASE HOST PORT. Exit 0: answered as RFC 9112 says."""

import re
import socket
import sys
import time

LIMIT_S = 30


class Incomplete(Exception):
    """The connection ended inside an answer: RFC 9112 8, the client must take it as an error."""


def connect(host, port):
    return socket.create_connection((host, port), timeout=LIMIT_S)


def read_response(f, method="GET"):
    """Status, headers and body of the next response; `None` at the end of the stream."""
    status = f.readline()
    if not status:
        return None
    match = re.fullmatch(rb"HTTP/1\.[01] (\d{3}) [ -~]*\r\n", status)
    if not match:
        raise SystemExit(f"not a status line: {status!r}")
    headers = {}
    while (line := f.readline()) != b"\r\n":
        name, colon, value = line.partition(b":")
        if not colon or not line.endswith(b"\r\n"):
            raise SystemExit(f"not a header: {line!r}")
        headers[name.decode().lower()] = value.strip().decode()
    code = int(match[1])
    if method == "HEAD" or code in (204, 304) or code < 200:
        return code, headers, b""
    if headers.get("transfer-encoding", "").lower() == "chunked":
        body = b""
        while True:
            line = f.readline()
            if not line:
                raise Incomplete
            size = int(line.split(b";")[0], 16)
            body += f.read(size)
            if size == 0:
                break
            if f.read(2) != b"\r\n":
                raise SystemExit("a chunk does not end where it says")
        while f.readline() not in (b"\r\n", b""):
            pass
        return code, headers, body
    if "content-length" in headers:
        body = f.read(int(headers["content-length"]))
        if len(body) != int(headers["content-length"]):
            raise SystemExit("the body is shorter than Content-Length")
        return code, headers, body
    return code, headers, f.read()


def pipeline(host, port):
    """A hundred requests in one write, every answer in its place."""
    s = connect(host, port)
    f = s.makefile("rb")
    paths = ["/small", "/page", "/sub/a.txt", "/not-there"]
    s.sendall(b"".join(b"GET %s HTTP/1.1\r\nHost: x\r\n\r\n" % paths[i % 4].encode() for i in range(100)))
    lengths = [64, 8046, 6]
    for i in range(100):
        code, _, body = read_response(f)
        wanted = (404, None) if i % 4 == 3 else (200, lengths[i % 4])
        if code != wanted[0] or wanted[1] not in (None, len(body)):
            raise SystemExit(f"answer {i}: {code} with {len(body)} bytes")


def bytewise(host, port):
    """A request that arrives a byte at a time."""
    s = connect(host, port)
    s.setsockopt(socket.IPPROTO_TCP, socket.TCP_NODELAY, 1)
    for byte in b"GET /page HTTP/1.1\r\nHost: example.test\r\nX-Filler: %s\r\n\r\n" % (b"y" * 60):
        s.sendall(bytes([byte]))
        time.sleep(0.0005)
    code, headers, body = read_response(s.makefile("rb"))
    if (code, len(body)) != (200, 8046):
        raise SystemExit(f"{code} with {len(body)} bytes")


def errors(host, port):
    """What is wrong is answered with the status that RFC 9110 gives it, and the server lives on."""
    long = b"a" * 100_000
    for request, allowed in [
        (b"GET / HTTP/1.1\r\n\r\n", {400}),  # RFC 9112 3.2: no Host
        (b"GET / HTTP/1.1\r\nHost: a\r\nHost: b\r\n\r\n", {400}),
        (b"NONSENSE\r\n\r\n", {400}),
        (b"GET /../../etc/passwd HTTP/1.1\r\nHost: x\r\n\r\n", {400, 403, 404}),
        (b"GET /%2e%2e/%2e%2e/etc/passwd HTTP/1.1\r\nHost: x\r\n\r\n", {400, 403, 404}),
        (b"GET /..%2f..%2fetc/passwd HTTP/1.1\r\nHost: x\r\n\r\n", {400, 403, 404}),
        (b"GET /not-there HTTP/1.1\r\nHost: x\r\n\r\n", {404}),
        (b"DELETE /page HTTP/1.1\r\nHost: x\r\n\r\n", {405}),
        (b"BREW /page HTTP/1.1\r\nHost: x\r\n\r\n", {405, 501}),
        (b"POST /echo HTTP/1.1\r\nHost: x\r\n\r\n", {411}),
        (b"GET /page HTTP/1.1\r\nHost: x\r\nRange: bytes=9000-\r\n\r\n", {416}),
        (b"POST /echo HTTP/1.1\r\nHost: x\r\nContent-Length: 5\r\nExpect: coffee\r\n\r\n12345", {417}),
        (b"GET /" + long + b" HTTP/1.1\r\nHost: x\r\n\r\n", {414, 431}),
        (b"GET / HTTP/1.1\r\nHost: x\r\nX: " + long + b"\r\n\r\n", {431}),
        (b"POST /echo HTTP/1.1\r\nHost: x\r\nTransfer-Encoding: gzip\r\n\r\n", {400, 501}),
        (b"POST /echo HTTP/1.1\r\nHost: x\r\nContent-Length: 3\r\nTransfer-Encoding: chunked\r\n\r\n0\r\n\r\n", {400}),
        (b"POST /echo HTTP/1.1\r\nHost: x\r\nTransfer-Encoding: chunked\r\n\r\nzz\r\n", {400, "incomplete"}),
        (b"POST /echo HTTP/1.1\r\nHost: x\r\nContent-Length: -1\r\n\r\n", {400}),
        (b"POST /echo HTTP/1.1\r\nHost: x\r\nContent-Length: 99999999999999999999\r\n\r\n", {400, 413}),
        (b"GET /page HTTP/3.7\r\nHost: x\r\n\r\n", {400, 505}),
    ]:
        s = connect(host, port)
        try:
            s.sendall(request)
        except (BrokenPipeError, ConnectionResetError):
            pass  # answered and closed before all of it was sent
        method = request.split(b" ")[0].decode()
        try:
            answer = read_response(s.makefile("rb"), method)
        except ConnectionResetError:
            answer = None
        except Incomplete:
            answer = ("incomplete", {}, b"")
        if answer is None or answer[0] not in allowed:
            raise SystemExit(f"{request[:60]!r}: {answer and answer[0]}, wanted one of {allowed}")
        if b"root:" in answer[2]:
            raise SystemExit(f"{request!r} reads /etc/passwd")
        s.close()
    code, _, body = read_response_of(host, port, b"GET /page HTTP/1.1\r\nHost: x\r\n\r\n")
    if (code, len(body)) != (200, 8046):
        raise SystemExit("after the wrong requests a right one fails")


def read_response_of(host, port, request):
    s = connect(host, port)
    s.sendall(request)
    return read_response(s.makefile("rb"))


def events(host, port):
    """Server-sent events come one by one, about one a second."""
    s = connect(host, port)
    s.sendall(b"GET /events HTTP/1.1\r\nHost: x\r\nAccept: text/event-stream\r\n\r\n")
    f = s.makefile("rb")
    head = b""
    while not head.endswith(b"\r\n\r\n"):
        line = f.readline()
        if not line:
            raise SystemExit(f"the stream ended: {head!r}")
        head += line
    if b" 200 " not in head or b"text/event-stream" not in head.lower():
        raise SystemExit(f"not an event stream: {head!r}")
    times = []
    while len(times) < 3:
        line = f.readline()
        if not line:
            raise SystemExit("the stream of events ended")
        if line.startswith(b"data:"):
            times.append(time.monotonic())
    gaps = [b - a for a, b in zip(times, times[1:])]
    # A loaded machine may hold an event up, and the next one then comes the sooner; the server must not drop its rhythm.
    if not (all(gap < 5.0 for gap in gaps) and 1.0 < sum(gaps) < 6.0):
        raise SystemExit(f"events at intervals of {gaps}")


def drain(host, port):
    """Reads `big` slowly and says when it has begun; the server is asked to stop meanwhile. All of it must come, then the end."""
    s = socket.socket(socket.AF_INET, socket.SOCK_STREAM)
    s.settimeout(LIMIT_S)
    s.setsockopt(socket.SOL_SOCKET, socket.SO_RCVBUF, 65536)
    s.connect((host, port))
    s.sendall(b"GET /big HTTP/1.1\r\nHost: x\r\n\r\n")
    f = s.makefile("rb", buffering=0)
    head = b""
    while not head.endswith(b"\r\n\r\n"):
        head += f.read(1)
    wanted = int(re.search(rb"(?i)content-length: *(\d+)", head)[1])
    print("begun", flush=True)
    got, began = 0, time.monotonic()
    while part := s.recv(100_000):
        got += len(part)
        if got < wanted / 2:
            time.sleep(0.02)
    print(f"{got} of {wanted} bytes in {time.monotonic() - began:.2f} s", flush=True)
    if got != wanted:
        raise SystemExit(f"{got} bytes instead of {wanted}")


CASES = {"pipeline": pipeline, "bytewise": bytewise, "errors": errors, "events": events, "drain": drain}

if __name__ == "__main__":
    CASES[sys.argv[1]](sys.argv[2], int(sys.argv[3]), *map(int, sys.argv[4:]))
