"""socket2me: a self-hosted webhook relay. `create_app` builds it; `wsgi.py` serves it.

`socket2me_flask.client` is what listens to one. Whoever imports that starts nothing of the relay: what is
named here is imported when it is asked for.
"""

from typing import TYPE_CHECKING, Any

if TYPE_CHECKING:
    from .factory import create_app
    from .services import get_services

__all__ = ["create_app", "get_services"]


def __getattr__(name: str) -> Any:
    if name not in __all__:
        raise AttributeError(f"module {__name__!r} has no attribute {name!r}")
    from . import factory

    return getattr(factory, name)
