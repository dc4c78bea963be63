"""The streams of one channel, as one client."""

from typing import Any

from ..errors import ClientGone, RelayError
from ..relay.call import Call
from ..relay.delivery import Client, OnAck
from ..relay.presence import Presence
from .stream import _SILENT


class FanOut:
    """Attaches streams: the first of a channel attaches the channel, the last detaches it."""

    def __init__(self, presence: Presence) -> None:
        self._presence = presence
        self._channels: dict[str, _Channel] = {}

    def attach(self, token: str, stream: Client) -> None:
        channel = self._channels.get(token)
        if channel is None:
            channel = self._channels[token] = _Channel(token)
            channel.streams[stream.sid] = stream
            self._presence.attach(token, channel)
        else:
            channel.streams[stream.sid] = stream

    def detach(self, token: str, stream: Client) -> None:
        channel = self._channels.get(token)
        if channel is None or channel.streams.pop(stream.sid, None) is None or channel.streams:
            return
        del self._channels[token]
        self._presence.detach(token, channel)


class _Channel:
    mode = "notify"
    window = 1
    bounds_calls = False
    has_room = True

    def __init__(self, token: str) -> None:
        self.sid = f"smee-{token}"
        self.answering: Any = _SILENT
        self.number = 0
        self.streams: dict[str, Client] = {}

    def send(self, call: Call, on_ack: OnAck | None = None, attempt: int | None = None) -> int | None:
        error: Exception = ClientGone()
        sent = False
        for stream in list(self.streams.values()):
            try:
                stream.send(call, on_ack, attempt)
                sent = True
            except (ClientGone, RelayError) as e:
                error = e
        if not sent:
            raise error
        return None

    def forget(self, ack_id: Any) -> None:
        pass

    def flush(self) -> None:
        for stream in list(self.streams.values()):
            try:
                stream.flush()
            except ClientGone:
                pass

    def has_lost(self, number: int) -> bool:
        return False

    def tell_dropped(self, event_id: str) -> None:
        pass

    def disconnect(self, final_event: str | None = None) -> None:
        for stream in list(self.streams.values()):
            stream.disconnect(final_event)

    def drop_connection(self) -> None:
        for stream in list(self.streams.values()):
            stream.drop_connection()
