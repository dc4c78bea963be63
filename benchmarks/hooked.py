"""The relay with a hook of Flask: its calls take the blueprint, not the worker's accelerator."""

from wsgi import app


@app.before_request
def see() -> None:
    """Have Flask dispatch every call."""
