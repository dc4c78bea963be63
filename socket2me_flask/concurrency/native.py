"""Threads and their like as they are without eventlet, where it has changed them."""

import sys
from importlib import import_module
from typing import Any


def native(module: str) -> Any:
    """Return a module as it is without eventlet, if that has changed it."""
    patcher = sys.modules.get("eventlet.patcher")
    return import_module(module) if patcher is None else patcher.original(module)
