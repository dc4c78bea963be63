"""Runs every benchmark and prints one table: `make bench`."""

import platform
import sys
from importlib.metadata import version
from importlib.util import find_spec

import client
import delivery
import fairness
import flat
import forwarding
import idle
import large
import listeners
import scaling
import signatures
import stopping
from harness import use_load_core

if __name__ == "__main__":
    use_load_core()
    parser = "gunicorn_h1c " + version("gunicorn_h1c") if find_spec("gunicorn_h1c") else "without gunicorn_h1c"
    print(f"Python {platform.python_version()}, gunicorn {version('gunicorn')}, {parser}\n")
    missed = False
    benchmarks = [
        module.run
        for module in (fairness, flat, idle, large, delivery, listeners, stopping, client, scaling, signatures)
    ]
    for run in [forwarding.run, forwarding.run_python, *benchmarks]:
        for row in run():
            print(row, flush=True)
            missed = missed or "MISSED" in str(row)
        print()
    sys.exit(missed)
