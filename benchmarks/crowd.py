"""Connects a client for each token on its input, says `ready`, and answers pings until it is killed."""

import selectors
import sys

from harness import Client, use_load_core

if __name__ == "__main__":
    use_load_core()
    port = int(sys.argv[1])
    selector = selectors.DefaultSelector()
    for token in sys.stdin.read().split():
        client = Client(port, token)
        client.socket.setblocking(False)
        selector.register(client, selectors.EVENT_READ)
    print("ready", flush=True)
    while True:
        for key, _ in selector.select():
            key.fileobj.on_readable()
            if key.fileobj.closed:
                selector.unregister(key.fileobj)
