"""The URLs of the later originals: those of the API without `/v1`.

`/go` forwards a request object as those clients expect it (`Call.is_legacy`).
"""

from flask import Blueprint

from ..relay.forwarder import METHODS
from . import forward, tokens

blueprint = Blueprint("legacy", __name__)

blueprint.add_url_rule(
    "/go/<anypath:tail>", view_func=forward.forward, methods=METHODS, provide_automatic_options=False
)

token_blueprint = Blueprint("legacy_tokens", __name__)
token_blueprint.after_request(tokens.add_headers)

token_blueprint.add_url_rule("/new", view_func=tokens.new)
token_blueprint.add_url_rule("/refresh/<anypath:token>", view_func=tokens.refresh)
