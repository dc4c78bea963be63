"""Engine.IO 3 clients: Socket.IO protocol 4 (socket.io-client 1.x and 2.x), beside Engine.IO 4 clients.

The codec of such a client's session translates what the client sends into protocol 5, before the rest of the relay
sees it, and what is sent to it on the way out. Events and disconnects are written alike in both protocols; only
connects differ.
"""

import json
import re
from collections.abc import Collection, Iterable, Iterator, Mapping, Sequence
from typing import TYPE_CHECKING, Any
from urllib.parse import parse_qsl

from ..engineio import Engine, protocol3
from ..engineio.protocol import OPEN, BadPacket, Codec, Packet

if TYPE_CHECKING:
    from _typeshed.wsgi import WSGIEnvironment

# What a client sends to connect to a namespace. socket.io-client 1.x puts no comma at its end.
_CONNECT = re.compile(rb"40(?P<namespace>/[^,?]*)(?:\?(?P<query>[^,]*))?(?P<comma>,?)", re.DOTALL).fullmatch

# The query of a namespace: as long as a URL may be, and with more parameters than options exist.
MAX_QUERY_BYTES = 8192
MAX_QUERY_FIELDS = 100

# What protocol 5 answers: a CONNECT with a `sid`, or the reason of a refusal.
_ANSWER = re.compile(rb"4(?P<kind>[04])(?P<namespace>/[^,]*,)?(?P<payload>{.*)", re.DOTALL).fullmatch

# The answer to a connect to "/", which such a client does not ask for and waits for.
_WELCOME = Packet(b"40")


class LegacyEngine(Engine):
    """An engine for Engine.IO 3 and 4 clients. `option_names` are those that a client may give when it connects."""

    def __init__(self, *args: Any, option_names: Collection[str], **kwargs: Any) -> None:
        super().__init__(*args, **kwargs)
        self._option_names = option_names

    def codec(self, query: Mapping[str, str]) -> Codec:
        if query.get("EIO", "3") == "3":
            return LegacyCodec(base64="b64" in query, option_names=self._option_names)
        return super().codec(query)

    def cors_headers(self, environ: "WSGIEnvironment") -> list[tuple[str, str]]:
        headers = super().cors_headers(environ)
        if headers and "EIO=4" not in environ.get("QUERY_STRING", ""):
            # They ask with credentials, always. The relay looks at none.
            headers.append(("Access-Control-Allow-Credentials", "true"))
        return headers


class LegacyCodec(protocol3.Codec):
    """The codec of Engine.IO 3, for the packets of protocol 5."""

    __slots__ = ("_option_names",)

    def __init__(self, *, base64: bool, option_names: Collection[str]) -> None:
        super().__init__(base64=base64)
        self._option_names = option_names

    def encode_payload(self, packets: Sequence[Packet]) -> tuple[str, bytes]:
        return super().encode_payload([*_to_protocol_4(packets)])

    def encode_frames(self, packets: Iterable[Packet]) -> bytes:
        return super().encode_frames(_to_protocol_4(packets))

    def decode_payload(self, body: bytes) -> list[Packet]:
        return [self._to_protocol_5(packet) for packet in super().decode_payload(body)]

    def decode_message(self, opcode: int, payload: bytes) -> Packet:
        return self._to_protocol_5(super().decode_message(opcode, payload))

    def _to_protocol_5(self, packet: Packet) -> Packet:
        """Translate what a client sends: options come in the namespace's query and not as `auth`.

        Unknown options are left out: an app that was written for the original may send others there. Raises
        `BadPacket` for a query that is longer than a URL may be.
        """
        match = None if packet.binary else _CONNECT(packet.data)
        if match is None:
            return packet
        self.encodes_twice = not match["comma"]
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


def _to_protocol_4(packets: Iterable[Packet]) -> Iterator[Packet]:
    """Translate what is sent to a client: a connect has no `sid`, and a refusal is its reason as a string."""
    for packet in packets:
        match = None if packet.binary else _ANSWER(packet.data)
        if match is None:
            yield packet
        else:
            head = b"4%b%b" % (match["kind"], match["namespace"] or b"")
            refusal = b"" if match["kind"] == b"0" else json.dumps(json.loads(match["payload"])["message"]).encode()
            yield Packet(head + refusal)
        if packet.data[:1] == OPEN and not packet.binary:
            yield _WELCOME
