"""The table of suites in docs/compatibility.md is of what is tested. `make conformance` holds it to what passes."""

import subprocess
import sys
from collections import Counter

from tests.support import conformance_table as table
from tests.support.servers import ROOT


def test_the_table_counts_the_tests_that_there_are():
    """As many of each file as the table states: none was added or taken away without it."""
    stated = table.rows()
    assert len(stated) == 6
    collected = subprocess.run(
        [sys.executable, "-m", "pytest", "--collect-only", "-q", "-p", "no:xdist", *stated],
        cwd=ROOT,
        capture_output=True,
        text=True,
        check=True,
    ).stdout
    assert Counter(line.partition("::")[0] for line in collected.splitlines() if "::" in line) == stated


def test_the_table_counts_the_cases_of_autobahn():
    """All of them, and those that are not plainly passed."""
    page = table.PAGE.read_text()
    strict = table.CASES - len(table.NOT_STRICT) - len(table.INFORMATIONAL)
    assert f"{table.CASES} cases of Autobahn: {strict} pass as asked" in page
    for number in (*table.NOT_STRICT, *table.INFORMATIONAL):
        assert number in page
