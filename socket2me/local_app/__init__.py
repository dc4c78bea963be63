"""HTTP/1.1 to the app on this machine."""
