"""What passes nginx: attacks from 127.0.0.2 through examples/nginx.conf, and a probe that comes through it, too."""

import contextlib

import pytest

from ..live import Server
from ..test_scaling import NGINX, Nginx
from .attack import assert_harmless
from .test_attacks import FRAMES, send_small_frames
from .test_attacks_http import ACCEPTS, ask_with_accept

pytestmark = pytest.mark.skipif(NGINX is None, reason="nginx is not installed")


class InFront(Nginx):
    """nginx, whose `worker_pid` is that of the relay behind it: CPU time, memory and files are the relay's."""

    @property
    def worker_pid(self):
        return self.relays[0].worker_pid


@pytest.fixture(scope="module")
def nginx(tmp_path_factory):
    with contextlib.ExitStack() as stack:
        relay = stack.enter_context(Server(HOLD_SECONDS=0, TRUSTED_PROXY_HOPS=1))
        yield stack.enter_context(InFront(tmp_path_factory.mktemp("nginx"), None, [relay] * 3))


@pytest.mark.parametrize("kind", FRAMES)
def test_small_frames_over_many_websockets(nginx, kind):
    """400 of them, as without nginx."""
    assert_harmless(nginx, send_small_frames, kind, 400, 3)


@pytest.mark.parametrize("name", ACCEPTS)
def test_accept_headers_that_are_costly_to_parse(nginx, name):
    """As many and as large as nginx lets pass."""
    assert_harmless(nginx, ask_with_accept, name, 7, 2)
