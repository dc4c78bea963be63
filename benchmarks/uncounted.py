"""The relay without what the metrics count of each call: what counting costs is measured against it."""

from socket2me_flask import get_services
from wsgi import app

forwarder = get_services(app).forwarder
forwarder.forward = forwarder._forward
