"""Node.js and the npm packages of `tests/js`, for tests in `tests/unit`: `make check` installs neither."""

import shutil

import pytest

from tests.support.servers import ROOT

JS = ROOT / "tests" / "js"
HAS_NODE = shutil.which("node") is not None
HAS_NPM_PACKAGES = HAS_NODE and (JS / "node_modules").is_dir()

needs_node = pytest.mark.skipif(not HAS_NODE, reason="Node.js is not installed")
needs_npm_packages = pytest.mark.skipif(not HAS_NPM_PACKAGES, reason="the packages of tests/js are not installed")
