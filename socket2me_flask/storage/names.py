"""Which owner has which name, and until when: the rules, and the names in memory.

A name is a token that its owner chose. It is held for its owner as long as its token lives, and for a grace after
that. The owner is the program that has its secret. Redis has the same rules in `cluster/redis.lua`.
"""

import heapq
import hmac
from collections import Counter
from collections.abc import Callable
from dataclasses import dataclass
from threading import RLock

from ..errors import NameTaken, TooManyNames, TooManyTokens

# How many names one key may hold, or one address where names are open: more than a team has apps, and few enough
# that no owner takes all good ones.
MAX_NAMES_PER_OWNER = 100

# How many entries of names that are not held any more the heap may have, beyond as many as there are names.
SPARE_ENTRIES = 1000


@dataclass(frozen=True, slots=True)
class Claim:
    """A request for a name.

    given_hash: the hash of the secret that comes with it; None if none does.
    new_hash: the hash of the secret that the name has from now on if it is free; None if a free one may not be had.
    owner: whose quota the name counts for. It reveals neither a key nor an address.
    """

    given_hash: bytes | None
    new_hash: bytes | None
    owner: str


@dataclass(slots=True)
class Hold:
    """A name that has an owner. `held_until` is when it is free, in seconds since the epoch."""

    name: str
    secret_hash: bytes
    owner: str
    held_until: float


class Names:
    """The names that are held, in memory. `lock` is held from the question whether a name is free to its answer.

    grace_seconds: how long a name is held after its token has expired.
    max_names: how many there may be, with those in their grace; 0 is no bound.
    """

    def __init__(self, clock: Callable[[], float], *, grace_seconds: float = 0, max_names: int = 0) -> None:
        self._clock = clock
        self._grace_seconds = grace_seconds
        self._max_names = max_names
        self._holds: dict[str, Hold] = {}
        self._of_owner: Counter[str] = Counter()
        self._ends: list[tuple[float, str]] = []  # a heap; a name that was extended has an entry that is too early
        self.lock = RLock()  # `flask run` serves with threads

    def __len__(self) -> int:
        return len(self._holds)

    def get(self, name: str) -> Hold | None:
        """Return a name that is held."""
        hold = self._holds.get(name)
        return hold if hold is not None and self._clock() < hold.held_until else None

    def is_held(self, name: str, secret_hash: bytes | None) -> bool:
        """Say whether a name is held, by the secret with that hash if one is given."""
        hold = self.get(name)
        return hold is not None and (secret_hash is None or hmac.compare_digest(hold.secret_hash, secret_hash))

    def secret_for(self, name: str, claim: Claim) -> bytes | None:
        """Return the hash of the secret that a name has once it was claimed; None if it may not be.

        Raises `NameTaken`, `TooManyNames` or `TooManyTokens`.
        """
        hold = self.get(name)
        if hold is not None:
            if not hmac.compare_digest(hold.secret_hash, claim.given_hash or b""):
                raise NameTaken
            return hold.secret_hash
        if claim.new_hash is not None:
            self._sweep()
            if self._of_owner[claim.owner] >= MAX_NAMES_PER_OWNER:
                raise TooManyNames
            if self._max_names and len(self._holds) >= self._max_names:
                raise TooManyTokens
        return claim.new_hash

    def hold(self, name: str, secret_hash: bytes, owner: str, expires_at: float) -> Hold:
        """Hold a name whose token expires then, in seconds since the epoch. It keeps its owner if it has one."""
        hold = self.get(name) or Hold(name, secret_hash, owner, 0)
        hold.held_until = expires_at + self._grace_seconds
        self.restore(hold)
        return hold

    def restore(self, hold: Hold) -> None:
        """Hold a name as it was held before."""
        self.release(hold.name)
        self._holds[hold.name] = hold
        self._of_owner[hold.owner] += 1
        heapq.heappush(self._ends, (hold.held_until, hold.name))
        if len(self._ends) > 2 * len(self._holds) + SPARE_ENTRIES:
            self._ends = [(each.held_until, each.name) for each in self._holds.values()]
            heapq.heapify(self._ends)

    def extend(self, name: str, expires_at: float) -> None:
        """Hold a name for longer, if it is one: its token was refreshed."""
        hold = self._holds.get(name)
        if hold is not None:
            hold.held_until = expires_at + self._grace_seconds

    def release(self, name: str) -> bool:
        """Release a name. Return False if it was not held."""
        hold = self._holds.pop(name, None)
        if hold is None:
            return False
        self._of_owner[hold.owner] -= 1
        if not self._of_owner[hold.owner]:
            del self._of_owner[hold.owner]
        return self._clock() < hold.held_until

    def _sweep(self) -> None:
        """Release the names whose time is over."""
        now = self._clock()
        while self._ends and self._ends[0][0] <= now:
            _, name = heapq.heappop(self._ends)
            hold = self._holds.get(name)
            if hold is None:
                continue
            if hold.held_until <= now:
                self.release(name)
            else:
                heapq.heappush(self._ends, (hold.held_until, name))
