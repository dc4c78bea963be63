"""Several processes on one Redis that work as one relay."""
