"""The relay. `create_app` builds it; `wsgi.py` builds it for servers.

`create_app` and `get_services` are imported when they are first used, so that `import socket2me_flask.config` and
the like load nothing else.
"""

from typing import TYPE_CHECKING, Any

if TYPE_CHECKING:
    from .app import create_app
    from .services import get_services

__all__ = ["create_app", "get_services"]


def __getattr__(name: str) -> Any:
    if name not in __all__:
        raise AttributeError(f"module {__name__!r} has no attribute {name!r}")
    from . import app

    return getattr(app, name)
