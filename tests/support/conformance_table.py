"""The table of suites in docs/compatibility.md, against what has run.

    python -m tests.support.conformance_table REPORT

`make conformance` does it. REPORT is what pytest wrote with `--junitxml`. Prints how many cases of each suite have
passed; ends with an error where the table says otherwise.
"""

import re
import sys
from collections import Counter
from xml.etree import ElementTree  # noqa: S405  # the report is our own

from tests.support.servers import ROOT

PAGE = ROOT / "docs" / "compatibility.md"

# How many cases of Autobahn there are, without those of compression.
CASES = 301

# Text that is not UTF-8, in fragments: refused when the message is whole, and not at the first invalid byte.
NOT_STRICT = {"6.4.1", "6.4.2", "6.4.3", "6.4.4"}

# Where RFC 6455 leaves the answer to the server.
INFORMATIONAL = {"7.1.6", "7.13.1", "7.13.2"}


def rows():
    """Return the number of tests that the table states for each file."""
    found = re.findall(r"^\| .* \| `(tests/\S+\.py)` \| ([\d,]+) \|", PAGE.read_text(), re.MULTILINE)
    return {file: int(count.replace(",", "")) for file, count in found}


def passed(report):
    """Return how many tests of each file have passed."""
    counts = Counter()
    for case in ElementTree.parse(report).iter("testcase"):  # noqa: S314
        if not {child.tag for child in case} & {"failure", "error", "skipped"}:
            counts[case.get("classname").replace(".", "/") + ".py"] += 1
    return counts


if __name__ == "__main__":
    counts = passed(sys.argv[1])
    wrong = False
    for file, stated in rows().items():
        wrong |= counts[file] != stated
        print(f"{counts[file]:6,} of {stated:,} passed  {file}")
    sys.exit(f"{PAGE.name} states what did not pass, or not all that did." if wrong else 0)
