"""The inspector: the requests of a token as they arrive, found by a filter, shown whole, sent again.

The relay and `socket2me listen --inspect` serve the same HTTP contract and the same page with it. Nothing of the
relay is imported.
"""
