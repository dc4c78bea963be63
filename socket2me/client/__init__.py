"""A client of a relay: its token, its connection, and what becomes of each delivery."""
