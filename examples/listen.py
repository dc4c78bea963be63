import sys

import socketio

server, token = sys.argv[1].rsplit("/", 1)
client = socketio.Client()


@client.on("request", namespace=f"/{token}")
def on_request(request):
    print(request["method"], request["params"], request.get("body"), flush=True)


client.connect(server, namespaces=[f"/{token}"])
client.wait()
