"""Names that `POST /v1/new` asks for: which are valid, who may claim one, how the operator releases one."""

from collections.abc import Callable
from typing import Any

import click
from flask import current_app

from ..config import Settings
from ..errors import BadName, ConfigError, Forbidden, NameDiffers, RelayError, Unauthorized, UnknownToken
from ..limits import address_key
from ..relay.tokens import fold_name, has_form_of_secret, hash_of, new_secret, tag_of
from ..services import get_services
from ..storage import Claim, TokenRecord
from ..storage import release_name as release_in_store

ASKS_FOR_KEY = "This relay asks for a key: Authorization: Bearer <key>."

# No one may claim these: they are parts of the relay's own URLs, or would pass for something of the operator's.
RESERVED_NAMES = (
    *("events", "favicon", "go", "healthz", "inspector", "metrics", "new", "openapi", "readyz", "refresh"),
    *("requests", "robots", "smee", "socket-io", "static", "tokens", "well-known"),
    *("abuse", "account", "admin", "administrator", "api", "app", "auth", "billing", "cdn", "console", "dashboard"),
    *("docs", "health", "help", "hostmaster", "internal", "localhost", "login", "logout", "mail", "null", "oauth"),
    *("operator", "ping", "postmaster", "relay", "root", "security", "signin", "signup", "socket2me", "status"),
    *("support", "system", "test", "token", "undefined", "webmaster", "www"),
)

# Characters that pass for others, as far as a name may have them (after UTS #39, section 4).
_LOOKS_LIKE = str.maketrans({"0": "o", "1": "l", "i": "l", "-": ""})


def _skeleton(name: str) -> str:
    """Return what is the same for names that look alike."""
    return name.translate(_LOOKS_LIKE)


_RESERVED = frozenset(map(_skeleton, RESERVED_NAMES))


def parse_name(given: Any, settings: Settings) -> str:
    """Return the name that is asked for, in lower case. Raises `BadName`."""
    name = fold_name(given) if isinstance(given, str) else None
    if name is None:
        raise BadName(
            "name is 3 to 63 letters a-z and digits, with single hyphens between them, "
            "and does not look like a token (a letter and 23 letters or digits)."
        )
    looks = _skeleton(name)
    if looks in _RESERVED or looks in map(_skeleton, settings.banned_names):
        raise BadName(f"The name {name} is reserved, or looks like one that is.")
    return name


def owner_of(key: str | None, address: str) -> str:
    """Return whose quota a name counts for: the key's, or without one the address's."""
    return tag_of(f"key {key}" if key is not None else f"address {address_key(address)}")


def claim(
    name: str,
    ttl_seconds: float,
    options: dict[str, Any],
    given: str | None,
    *,
    owner: str | None,
    verify: Callable[[str], str] | None,
    **delivery: Any,
) -> tuple[TokenRecord, str]:
    """Return the token of a name and its secret, to the owner of the secret `given`, or to an `owner` if free.

    One that lives is refreshed, and keeps the options that it has. Raises `NameDiffers` if `options` has others,
    what `TokenStore.claim` raises, and `Unauthorized` or `Forbidden` to a caller that may not claim a name.
    """
    services = get_services()
    if owner is None and not has_form_of_secret(given or ""):
        raise _refusal(services.settings)
    made = new_secret()
    asked = Claim(hash_of(given) if given else None, hash_of(made) if owner is not None else None, owner or "")
    if services.store.get(name) is None:
        services.relay.expire()  # what is left of its life before goes first: that may have been another's
    stored = verify(name) if verify is not None else None
    found = services.store.claim(name, ttl_seconds, asked, verify=stored, **delivery)
    if found is None:
        raise _refusal(services.settings)
    record, is_new = found
    services.relay.tokens_issued += is_new
    secret = made if record.secret_hash == asked.new_hash else given
    if not is_new:
        _check_same(record, options)
        record = services.store.refresh(name) or record
    return record, secret or ""


def release_expired(name: str, given: str | None) -> None:
    """Release a name that has expired and is held for its owner. Raises `UnknownToken` for another secret."""
    services = get_services()
    if given is None or not services.store.release(name, hash_of(given)):
        raise UnknownToken
    services.relay.presence.end(name)


def _refusal(settings: Settings) -> RelayError:
    if settings.api_keys:
        return Unauthorized(ASKS_FOR_KEY)
    return Forbidden(
        "A name takes a key of SOCKET2ME_API_KEYS, or SOCKET2ME_OPEN_NAMES=true, and this relay has neither."
    )


def _check_same(record: TokenRecord, options: dict[str, Any]) -> None:
    """Raise `NameDiffers` unless a token that lives has the options that are asked for."""
    for option in options.keys() - {"name", "ttl_seconds", "verify"}:
        if (has := getattr(record, option)) != options[option]:
            raise NameDiffers(f"The name {record.token} lives, with another {option}: {has}. {NameDiffers.how}")
    if "verify" in options and not get_services().verification.is_same(record, options["verify"]):
        raise NameDiffers(f"The name {record.token} lives, with another verify. {NameDiffers.how}")


@click.argument("name")
def release_name(name: str) -> None:
    """Let a name go, and end its token: anyone may claim it then.

    With a file, the relay that serves it does so within SOCKET2ME_REAPER_INTERVAL_SECONDS.
    """
    name = name.lower()
    try:
        is_released = release_in_store(get_services(current_app).settings, name)
    except (ConfigError, RelayError) as error:
        raise click.ClickException(str(error)) from None
    if not is_released:
        raise click.ClickException(f"No one holds the name {name}.")
    click.echo(f"{name} is released.")
