"""The client library in a thread of this process, and the command in a process of its own."""

import subprocess
import threading
from contextlib import contextmanager

from socket2me import Client
from socket2me.client.http_api import RelayApi, Token
from tests.support.servers import BIN, DEADLINE_SECONDS, clean_environment, wait_until


@contextmanager
def listening(client, handler):
    """Listen in a thread, which the block gets, until the block ends; what `listen` raised is raised here."""
    raised = []

    def listen():
        try:
            client.listen(handler)
        except Exception as error:
            raised.append(error)

    thread = threading.Thread(target=listen)
    thread.start()
    try:
        yield thread
    finally:
        client.close()
        thread.join(DEADLINE_SECONDS)
    assert not thread.is_alive()
    if raised:
        raise raised[0]


def until_connected(server, client):
    api = RelayApi(server.url)
    wait_until(lambda: api.inspect(Token(client.token, client.secret))["connected"], "it is connected")


def open_on(server, **options):
    client = Client(server.url, **options)
    client.open()
    server.giveaways |= {client.token, client.secret or client.token}
    return client


def run(home, *arguments, check=True):
    return subprocess.run(
        [BIN / "socket2me", *arguments],
        env={**clean_environment(), "XDG_STATE_HOME": str(home)},
        capture_output=True,
        text=True,
        timeout=20,
        check=check,
    )
