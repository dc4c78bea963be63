"""What a module loads: the storage knows neither the transport nor the web framework."""

import subprocess
import sys

# In a fresh interpreter: the modules that came with an import.
CODE = """
import sys
import socket2me_flask.storage.memory
print(*sys.modules, sep="\\n")
"""
FORBIDDEN = (
    "socket2me_flask.engineio",
    "socket2me_flask.sockets",
    "engineio",
    "eventlet",
    "flask",
    "redis",
    "socketio",
)


def test_the_storage_loads_no_transport_and_no_framework():
    """`import socket2me_flask.storage.memory` loads no module of Engine.IO, Socket.IO, Flask, eventlet or Redis."""
    loaded = subprocess.run([sys.executable, "-c", CODE], capture_output=True, text=True, check=True).stdout.split()
    assert "socket2me_flask.storage.sqlite" in loaded
    assert [
        name for name in loaded if name.startswith(tuple(f"{each}." for each in FORBIDDEN)) or name in FORBIDDEN
    ] == []
