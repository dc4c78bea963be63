"""What passes nginx: attacks from 127.0.0.2 through examples/nginx.conf, seen by a probe of the relay behind it."""

import contextlib

import pytest

from tests.support.attack import assert_harmless
from tests.support.nginx import NGINX, Nginx
from tests.support.servers import Server
from tests.support.shared_attacks import ask_with_accept, send_small_frames

pytestmark = pytest.mark.skipif(NGINX is None, reason="nginx is not installed")


@pytest.fixture(scope="module")
def nginx(tmp_path_factory):
    with contextlib.ExitStack() as stack:
        relay = stack.enter_context(Server(HOLD_SECONDS=0, TRUSTED_PROXY_HOPS=1))
        yield stack.enter_context(Nginx(tmp_path_factory.mktemp("nginx"), None, [relay] * 3))


@pytest.mark.parametrize("kind", ["fragment", "mixed"])
def test_small_frames_over_many_websockets(nginx, kind):
    """400 of them, as without nginx."""
    assert_harmless(nginx.relays[0], send_small_frames, kind, 400, 1, attack_port=nginx.port)


@pytest.mark.parametrize("name", ["many parameters"])
def test_accept_headers_that_are_costly_to_parse(nginx, name):
    """As many and as large as nginx lets pass."""
    assert_harmless(nginx.relays[0], ask_with_accept, name, 7, 1, attack_port=nginx.port)
