"""Autobahn's own cases for WebSocket servers, against the relay's WebSocket under the relay's worker.

kosoku, from PyPI, runs the suite's case files; the suite's own client needs Python 2.
"""

import json
import shlex
import subprocess
from importlib.util import find_spec

import pytest

from tests.support.conformance_table import CASES, INFORMATIONAL, NOT_STRICT
from tests.support.servers import BIN, Server

pytestmark = [
    pytest.mark.skipif(find_spec("kosoku") is None, reason="the extra `conformance` is not installed"),
    pytest.mark.timeout(300),
]

# 12 and 13 are of compression, which the relay does not offer.
SECTIONS = ("1.*", "2.*", "3.*", "4.*", "5.*", "6.*", "7.*", "9.*", "10.*")


class EchoServer(Server):
    """The server of `echo.py`."""

    @staticmethod
    def command(runner, port):
        command = "gunicorn -k socket2me_flask.worker.EventletWorker tests.support.echo:app"
        return shlex.split(command), {"PORT": str(port), "GUNICORN_CMD_ARGS": ""}


@pytest.fixture(scope="module")
def results(tmp_path_factory):
    """Return what the suite says of each case, by number."""
    folder = tmp_path_factory.mktemp("autobahn")
    with EchoServer() as server:
        command = [BIN / "kosoku", "-m", "fuzzingclient", "-o", folder, f"127.0.0.1:{server.port}"]
        for section in SECTIONS:
            command += ["-i", section]
        subprocess.run(command, check=True, timeout=240, capture_output=True)
    (cases,) = json.loads((folder / "index.json").read_text()).values()
    return cases


def test_every_case_passes(results):
    """Each is `OK`, but for those of `conformance_table`, and each connection ends as it should."""
    assert len(results) == CASES
    expected = dict.fromkeys(NOT_STRICT, "NON-STRICT") | dict.fromkeys(INFORMATIONAL, "INFORMATIONAL")
    for number, case in results.items():
        assert case["behavior"] == expected.get(number, "OK"), (number, case)
        assert case["behaviorClose"] == ("INFORMATIONAL" if number in INFORMATIONAL else "OK"), (number, case)
