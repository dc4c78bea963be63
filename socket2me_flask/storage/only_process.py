"""What a store answers about other processes where there are none."""

from .record import TokenRecord


class OnlyProcess:
    """The part of `TokenStore` that is about which process has a client, for a store of one process."""

    def get(self, token: str) -> TokenRecord | None:
        """Return a token that lives: each store has its own."""
        raise NotImplementedError

    def attach(self, token: str, client: str, mode: str) -> TokenRecord | None:
        return self.get(token)

    def detach(self, token: str, client: str) -> None:
        pass

    def join(self, token: str, listener: str) -> None:
        pass

    def claim_listener(self, token: str, listener: str) -> bool:
        return True

    def leave(self, token: str, listener: str) -> None:
        pass

    def listeners_elsewhere(self, token: str) -> list[str]:
        return []
