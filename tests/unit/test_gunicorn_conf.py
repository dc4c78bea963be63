"""`gunicorn.conf.py`: what gunicorn makes of it."""

import re
import subprocess
from functools import cache

import pytest

from tests.support.servers import ROOT, clean_environment, variables

# What Heroku sets, and a cap on clients.
HEROKU = {"PORT": "9000", "DYNO": "web.1", "WEB_CONCURRENCY": "4", "MAX_CONNECTIONS": "100"}


@pytest.fixture(scope="module")
def config():
    """Return gunicorn's own view of its settings, as text, for an environment."""

    @cache  # each starts Python and loads the application
    def config(**environment):
        shown = subprocess.run(
            ["gunicorn", "-k", "eventlet", "wsgi:app", "--print-config"],
            cwd=ROOT,
            env={**clean_environment(), **variables(environment)},
            capture_output=True,
            text=True,
            timeout=30,
            check=True,
        )
        return dict(re.findall(r"^(\w+) += (.*)$", shown.stdout, re.MULTILINE))

    return config


def test_where_it_listens(config):
    """On this machine only, unless BIND or a platform says otherwise."""
    assert config()["bind"] == "['127.0.0.1:8000']"
    assert config(BIND="::1", PORT="9000")["bind"] == "['[::1]:9000']"
    assert config(**HEROKU)["bind"] == "['0.0.0.0:9000']"


def test_one_process_whatever_the_platform_says(config):
    """The memory store serves one process; Heroku sets WEB_CONCURRENCY to more."""
    assert config(**HEROKU)["workers"] == "1"


def test_gunicorn_has_room_above_the_cap_on_clients(config):
    """Callers find a place when all clients are connected."""
    assert int(config(**HEROKU)["worker_connections"]) > 1000


def test_the_control_socket_is_off(config):
    """The relay has no socket for administration in the home folder."""
    assert config()["control_socket_disable"] == "True"
