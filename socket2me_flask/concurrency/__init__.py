"""How code waits, on the hub of eventlet and in threads; futures; one timer for many items."""
