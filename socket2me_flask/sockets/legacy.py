"""Engine.IO 3 clients: Socket.IO protocol 4 (socket.io-client 1.x and 2.x), beside Engine.IO 4 clients.

What such a client sends is translated into protocol 5 before python-socketio's part sees it, and what is sent to
it on the way out. Events and disconnects are written alike in both protocols; only connects differ. Of
python-engineio and python-socketio this touches public members only, by way of `Engine`.
"""

import json
import re
from collections.abc import Collection, Mapping
from typing import TYPE_CHECKING, Any
from urllib.parse import parse_qsl

from ..engineio import Engine, Session
from ..engineio.protocol import BadPacket, Codec, Packet
from ..engineio.protocol3 import Codec as Codec3

if TYPE_CHECKING:
    from _typeshed.wsgi import WSGIEnvironment

# What a client sends to connect to a namespace. socket.io-client 1.x puts no comma at its end.
_CONNECT = re.compile(rb"40(?P<namespace>/[^,?]*)(?:\?(?P<query>[^,]*))?(?P<comma>,?)", re.DOTALL).fullmatch

# The query of a namespace: as long as a URL may be, and with more parameters than options exist.
MAX_QUERY_BYTES = 8192
MAX_QUERY_FIELDS = 100

# What protocol 5 answers: a CONNECT with a `sid`, or the reason of a refusal.
_ANSWER = re.compile(r"(?P<kind>[04])(?P<namespace>/[^,]*,)?(?P<payload>{.*)", re.DOTALL).fullmatch

# The answer to a connect to "/", which such a client does not ask for and waits for.
_WELCOME = Packet(b"40")


class LegacyEngine(Engine):
    """An engine for Engine.IO 3 and 4 clients. `option_names` are those that a client may give when it connects."""

    def __init__(self, *args: Any, option_names: Collection[str], **kwargs: Any) -> None:
        super().__init__(*args, **kwargs)
        self._option_names = option_names

    def codec(self, query: Mapping[str, str]) -> Codec:
        if query.get("EIO", "3") == "3":
            return Codec3(base64="b64" in query)
        return super().codec(query)

    def cors_headers(self, environ: "WSGIEnvironment") -> list[tuple[str, str]]:
        headers = super().cors_headers(environ)
        if headers and "EIO=4" not in environ.get("QUERY_STRING", ""):
            # They ask with credentials, always. The relay looks at none.
            headers.append(("Access-Control-Allow-Credentials", "true"))
        return headers

    def on_arrived(self, session: Session, environ: "WSGIEnvironment") -> None:
        super().on_arrived(session, environ)
        if isinstance(session.codec, Codec3):
            session.send_control(_WELCOME)

    def on_packet(self, session: Session, packet: Packet) -> None:
        if isinstance(session.codec, Codec3):
            try:
                packet = self._to_protocol_5(session.codec, packet)
            except BadPacket as error:
                session.refuse(str(error))
                return
        super().on_packet(session, packet)

    def send(self, sid: str, data: str | bytes) -> None:
        session = self.sessions.get(sid)
        if session is not None and isinstance(session.codec, Codec3) and isinstance(data, str):
            data = _to_protocol_4(data)
        super().send(sid, data)

    def _to_protocol_5(self, codec: Codec3, packet: Packet) -> Packet:
        """Translate what a client sends: options come in the namespace's query and not as `auth`.

        Unknown options are left out: an app that was written for the original may send others there. Raises
        `BadPacket` for a query that is longer than a URL may be.
        """
        match = None if packet.binary else _CONNECT(packet.data)
        if match is None:
            return packet
        codec.encodes_twice = not match["comma"]
        if not match["query"]:
            return packet
        if len(match["query"]) > MAX_QUERY_BYTES:
            raise BadPacket("a query that is too long")
        try:
            text = match["query"].decode(errors="replace")
            query = dict(parse_qsl(text, keep_blank_values=True, max_num_fields=MAX_QUERY_FIELDS))
        except ValueError:
            raise BadPacket("a query of too many parameters") from None
        auth = {name: _value(name, query[name]) for name in self._option_names if name in query}
        return Packet(b"40%b,%b" % (match["namespace"], json.dumps(auth).encode()))


def _value(name: str, text: str) -> str | int:
    return int(text) if name == "window" and re.fullmatch("[0-9]{1,9}", text) else text


def _to_protocol_4(packet: str) -> str:
    """Translate what is sent to a client: a connect has no `sid`, and a refusal is its reason as a string."""
    match = _ANSWER(packet)
    if match is None:
        return packet
    head = match["kind"] + (match["namespace"] or "")
    return head if match["kind"] == "0" else head + json.dumps(json.loads(match["payload"])["message"])
