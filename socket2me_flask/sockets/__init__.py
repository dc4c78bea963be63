"""How a call reaches its client: Flask-SocketIO, and the request object."""
