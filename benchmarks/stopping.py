"""A stop under load: SIGTERM with 1,000 idle clients connected and requests in flight, then a new process."""

import signal
import socket
import threading
import time

from harness import Client, Result, Row, Server, load, payload, post, use_load_core


def status_of_a_new_call(relay: Server, token: str) -> int:
    """Return the status of a call over a connection of its own."""
    call = load(relay.port, post(f"/v1/go/{token}", b"{}"), connections=1, requests=1, until_closed=True)
    return next(iter(call.answers), 0)


def run() -> list[Row]:
    with Server() as relay:
        clients = [Client(relay.port, token) for token in relay.new_tokens(1000)]
        token = relay.new_token()
        listener = Client(relay.port, token)
        idle_caller = socket.create_connection(("127.0.0.1", relay.port))
        result = Result()

        def call() -> None:
            nonlocal result
            result = load(
                relay.port, post(f"/v1/go/{token}", payload()), seconds=3, clients=[listener], until_closed=True
            )

        caller = threading.Thread(target=call)
        caller.start()
        time.sleep(1)
        stopped = time.perf_counter()
        relay.process.send_signal(signal.SIGTERM)
        while not (late := status_of_a_new_call(relay, token)) == 503:  # gunicorn's master takes up to a second
            time.sleep(0.05)
        status = relay.process.wait(30)
        seconds = time.perf_counter() - stopped
        caller.join()
        idle_caller.close()
        told = 0
        for client in clients:
            client.socket.settimeout(1)
            client.on_readable()
            told += client.closed
        port = relay.port
    started = time.perf_counter()
    with Server(port=port):
        again = time.perf_counter() - started
    other = sum(count for code, count in result.answers.items() if code not in (200, 503))
    return [
        Row("from SIGTERM to the end of the process", seconds, "s", 5),
        Row("its status", status, "", 0),
        Row("of 1,000 clients, not told", 1000 - told, "clients", 0),
        Row("requests in flight that were not answered", result.unanswered, "requests", 0),
        Row("answers that were neither 200 nor 503", other, "requests", 0),
        Row("answer to a new call after SIGTERM", late, "", 503),
        Row("accepted and not delivered", max(0, result.ok - listener.received), "requests", 0),
        Row("a new process serves after", again, "s"),
    ]


if __name__ == "__main__":
    use_load_core()
    print(*run(), sep="\n")
