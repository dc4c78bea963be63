"""A real relay does what its OpenAPI document says: schemathesis compares statuses, bodies, headers, bad input."""

import json
import subprocess

import pytest

from socket2me_flask.relay.forwarder import METHODS
from tests.support.library import listening, open_on, until_connected
from tests.support.servers import BIN, Server

# `503` is what the document promises while no client is connected.
CONFIG = """
[checks.not_a_server_error]
expected-statuses = ["2xx", "3xx", "4xx", "503"]

# Whether a text is a key of a provider, and its options go together, no schema says.
[[operations]]
include-operation-id = "newTokenWithSecret"
checks.positive_data_acceptance.expected-statuses = ["2xx", "400", "401", "403", "404", "5xx"]
"""


@pytest.fixture(scope="module")
def relay(tmp_path_factory):
    """A relay that keeps mailboxes, without the URLs of the original, which are the same views."""
    store = f"sqlite:///{tmp_path_factory.mktemp('relay')}/relay.db"
    with Server(STORE_URL=store, HOLD_SECONDS=0, LEGACY_CLIENTS=False, METRICS_KEY="key") as server:
        yield server


def run_schemathesis(relay, folder, *arguments, config=CONFIG):
    """Run it. It ends with another status than 0 if it finds anything."""
    (folder / "schemathesis.toml").write_text(config)
    result = subprocess.run(
        [
            *(BIN / "schemathesis", "--config-file", folder / "schemathesis.toml"),
            *("run", f"{relay.url}/openapi.json", "--seed", "1", "--generation-database", "none", *arguments),
        ],
        cwd=folder,
        capture_output=True,
        text=True,
        timeout=50,
        check=False,
    )
    assert result.returncode == 0, result.stdout + result.stderr
    print(result.stdout)


def test_schemathesis_finds_nothing(relay, tmp_path):
    """Each operation is called with data that the document allows, and that it does not; and some in sequences."""
    phases = "coverage,fuzzing,stateful"
    run_schemathesis(relay, tmp_path, "--phases", phases, "--max-examples", "1")


def test_schemathesis_finds_nothing_with_a_client(relay, tmp_path):
    """The same for a token that lives, with its secret, and with a client that answers calls."""
    client = open_on(relay)
    received = []
    paths = r"^/v1/(go|refresh|tokens)/\{token\}(/events)?$"
    config = f"""{CONFIG}
[parameters]
token = {json.dumps(client.token)}
"""
    with listening(client, received.append):
        until_connected(relay, client)
        run_schemathesis(
            relay,
            tmp_path,
            *("--phases", "coverage", "--include-path-regex", paths, "--exclude-operation-id", "deleteToken"),
            *("-H", f"Authorization: Bearer {client.secret}"),
            config=config,
        )
    methods = {request.method for request in received}
    assert methods == set(METHODS)
