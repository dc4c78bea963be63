"""What `socket2me listen` gets through: from callers through the relay and the client to a local app, and back.

16 callers, each of which waits for its answer: what is counted has been through the app. The relay has one core;
the client, the app and the callers share the other.
"""

import os
import socket
import subprocess
import sys
import tempfile
import threading
from pathlib import Path

from harness import Client, Row, Server, load, payload, post, use_load_core

REQUESTS = 5_000
ANSWER = b"HTTP/1.1 200 OK\r\nContent-Length: 2\r\n\r\nOK"


def serve_app() -> None:
    """Be a trivial local app: say on which port, and answer each request."""
    listener = socket.create_server(("127.0.0.1", 0))
    print(listener.getsockname()[1], flush=True)
    while True:
        connection, _ = listener.accept()
        threading.Thread(target=answer_all, args=[connection], daemon=True).start()


def answer_all(connection: socket.socket) -> None:
    with connection.makefile("rb") as stream:
        while stream.readline():
            length = 0
            while (header := stream.readline()) != b"\r\n":
                if header.lower().startswith(b"content-length:"):
                    length = int(header.split(b":")[1])
            stream.read(length)
            connection.sendall(ANSWER)


def through(relay: Server, request_body: bytes, home: str) -> float:
    """Return the requests a second through `socket2me listen`."""
    app = subprocess.Popen([sys.executable, __file__, "app"], stdout=subprocess.PIPE, text=True)
    target = f"http://127.0.0.1:{app.stdout.readline().strip()}"
    listen = subprocess.Popen(
        [Path(sys.executable).with_name("socket2me"), "listen", target, "--server", relay.url],
        env={**os.environ, "XDG_STATE_HOME": home},
        stdout=subprocess.PIPE,
        text=True,
    )
    try:
        while "/v1/go/" not in (line := listen.stdout.readline()):
            pass
        url = line.strip()
        while "Connected" not in listen.stdout.readline():
            pass
        threading.Thread(target=listen.stdout.read, daemon=True).start()
        request = post(url.removeprefix(relay.url), request_body)
        load(relay.port, request, requests=500)
        result = load(relay.port, request, requests=REQUESTS)
        if result.ok != REQUESTS:
            raise RuntimeError(result.answers)
        return REQUESTS / result.seconds
    finally:
        listen.terminate()
        listen.wait()
        app.terminate()
        app.wait()


def run() -> list[Row]:
    body = payload()
    with tempfile.TemporaryDirectory() as folder:
        with Server() as relay:
            token = relay.new_token()
            request = post(f"/v1/go/{token}", body)
            result = load(relay.port, request, requests=20_000, clients=[Client(relay.port, token)])
            alone = 20_000 / result.seconds
            plain = through(relay, body, f"{folder}/plain")
        with Server(STORE_URL=f"sqlite:///{folder}/relay.db") as relay:
            kept = through(relay, body, f"{folder}/kept")
    return [
        Row("relay alone, to a client that only counts", alone, "requests/s"),
        Row("through relay and client to an app and back", plain, "requests/s"),
        Row("the time of each", 1000 / plain, "ms", 2.0),
        Row("relay alone / through relay and client", alone / plain, "x"),
        Row("the same from a mailbox", kept, "requests/s"),
        Row("the time of each, from a mailbox", 1000 / kept, "ms", 2.0),
    ]


if __name__ == "__main__":
    if sys.argv[1:] == ["app"]:
        serve_app()
    use_load_core()
    print(*run(), sep="\n")
