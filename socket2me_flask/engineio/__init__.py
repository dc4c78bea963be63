"""Engine.IO for very many clients that mostly listen: the transport below python-socketio.

`Engine` takes the place of python-engineio's server. It speaks the same protocol (4) to the same clients, over
long-polling and WebSocket. What is different: an idle client costs a watched socket and no green thread; one
timer pings them all; what waits for a client has a bound; and everything that a peer sends is checked.
"""

from .outbox import EngineFull, MessageTooLarge, OutboxFull
from .server import Engine
from .session import Session, SessionClosed
from .sessions import Limits

__all__ = ["Engine", "EngineFull", "Limits", "MessageTooLarge", "OutboxFull", "Session", "SessionClosed"]
