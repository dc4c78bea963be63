"""Names with brackets in queries and forms, as the JavaScript library `qs` reads them."""

import json

import pytest
from hypothesis import given
from hypothesis import strategies as st

from socket2me_flask.http.query_string import MAX_DEPTH, nest

# What qs 6.2.4 makes of each.
AS_QS = {
    "a=1": {"a": "1"},
    "a[b]=1&l[]=2": {"a": {"b": "1"}, "l": ["2"]},
    "a=1&a=2&a=3": {"a": ["1", "2", "3"]},
    "a[b][c]=1&a[b][d]=2": {"a": {"b": {"c": "1", "d": "2"}}},
    "a[0]=x&a[2]=y&a[1]=z": {"a": ["x", "z", "y"]},
    "a[21]=x": {"a": {"21": "x"}},
    "a[]=1&a=2": {"a": ["1", "2"]},
    "a=1&a[]=2": {"a": ["1", "2"]},
    "a[b]=1&a[b]=2": {"a": {"b": ["1", "2"]}},
    "a[0][x]=1&a[0][y]=2": {"a": [{"x": "1", "y": "2"}]},
    "a[b=1": {"a[b": "1"},
    "a[b][c][d][e][f][g]=1": {"a": {"b": {"c": {"d": {"e": {"f": {"[g]": "1"}}}}}}},
}

# What differs from it: nothing is dropped, and no name means two things.
NOT_AS_QS = {
    "=1": {"": "1"},
    "a[__proto__]=1&__proto__=2": {"a[__proto__]": "1", "__proto__": "2"},
    "a[_placeholder]=true": {"a[_placeholder]": "true"},
    "a=1&a[b]=2": {"a": {"0": "1", "b": "2"}},
    "a[b]=1&a=2": {"a": {"b": "1", "0": "2"}},
    "[a]=1": {"[a]": "1"},
    "a[]b=1": {"a[]b": "1"},
}


def pairs(query):
    return [tuple(part.split("=", 1)) for part in query.split("&")]


@pytest.mark.parametrize("query", [*AS_QS, *NOT_AS_QS])
def test_names_make_objects_and_lists(query):
    """Each as in the table."""
    assert nest(pairs(query)) == {**AS_QS, **NOT_AS_QS}[query]


@given(st.lists(st.tuples(st.text(alphabet="ab[]01_", max_size=12), st.sampled_from(["x", "y"]))))
def test_whatever_the_names_are_every_value_is_there(given_pairs):
    """As often as it was sent, and no deeper than may be."""

    def values(tree, depth=0):
        assert depth <= MAX_DEPTH + 2
        if isinstance(tree, str):
            return [tree]
        members = tree.values() if isinstance(tree, dict) else tree
        return [value for member in members for value in values(member, depth + 1)]

    tree = nest(given_pairs)
    assert sorted(values(tree)) == sorted(value for _, value in given_pairs)
    json.dumps(tree)
