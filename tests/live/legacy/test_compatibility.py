"""The table of docs/compatibility.md is of what is tested: here, in test_clients, test_nexus and test_live."""

import json
import re
from importlib.metadata import version

from tests.support.legacy_clients import TRANSPORTS, VERSIONS, crowd
from tests.support.servers import ROOT

V3 = "3.1.3"


def test_a_client_of_2020(server):
    """It speaks Engine.IO 4, as current clients do."""
    tokens = {transport: server.new() for transport in TRANSPORTS}
    with crowd(server, [(V3, transport, token) for transport, token in tokens.items()]) as clients:
        for client, token in zip(clients, tokens.values(), strict=True):
            client.expect("connect")
            server.go(token, json="ü")
            assert client.expect("request")["body"] == "ü"


def test_the_table_is_what_is_tested():
    """A row that no test stands for, or a version that is not the one that is tested, fails here."""
    dependencies = json.loads((ROOT / "tests" / "js" / "package.json").read_text())["dependencies"]
    tested = [*VERSIONS, V3, dependencies["socket.io-client"]]
    clients = [f"socket.io-client {number}" for number in tested]
    clients.append(f"socketIO-client-nexus {version('socketIO-client-nexus')}")
    clients.append(f"python-socketio {'.'.join(version('python-socketio').split('.')[:2])}")
    table = re.findall(r"^\| (\S+ [\d.]+) \| (.*) \|$", (ROOT / "docs/compatibility.md").read_text(), re.MULTILINE)
    assert table == [(client, "yes | yes | yes") for client in clients]
