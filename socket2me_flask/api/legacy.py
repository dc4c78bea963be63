"""The URLs of the later originals: those of the API without `/v1`.

`/go` forwards a request object that has `url` and `query` as those clients expect them (`Call.is_legacy`).
"""

from flask import Blueprint

from . import forward, tokens

blueprint = Blueprint("legacy", __name__)

blueprint.add_url_rule("/new", view_func=tokens.new)
blueprint.add_url_rule("/refresh/<anypath:token>", view_func=tokens.refresh)
blueprint.add_url_rule(
    "/go/<anypath:tail>", view_func=forward.forward, methods=forward.METHODS, provide_automatic_options=False
)
