"""The yardstick: a WSGI app that reads the body and answers `OK`, and does nothing else.

Run by the same worker as the relay, it costs what gunicorn and eventlet cost; the rest is the relay's.
"""


def app(environ, start_response):
    environ["wsgi.input"].read()
    start_response("200 OK", [("Content-Type", "text/plain"), ("Content-Length", "2")])
    return [b"OK"]
