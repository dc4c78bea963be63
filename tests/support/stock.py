"""The relay as the stock stack makes it: what the hostile clients of this folder were seen to do harm to."""

import sys

import eventlet

eventlet.monkey_patch()

import eventlet.wsgi  # noqa: E402
from flask import Flask, request  # noqa: E402
from flask_socketio import SocketIO  # noqa: E402

app = Flask(__name__)
socketio = SocketIO(app, namespaces="*")
clients = {}
connects = []


@socketio.on("connect", namespace="*")
def connect(auth=None):
    connects.append(request.namespace)
    clients[request.namespace] = request.sid


@app.get("/healthz")
def healthz():
    return "OK"


@app.get("/connects")
def count():
    return str(len(connects))


@app.post("/v1/go/<token>")
def go(token):
    body = request.get_data()
    socketio.emit("request", body, to=clients[f"/{token}"], namespace=f"/{token}", callback=lambda *args: None)
    return "OK"


if __name__ == "__main__":
    eventlet.wsgi.server(eventlet.listen(("127.0.0.1", int(sys.argv[1]))), app, log_output=False)
