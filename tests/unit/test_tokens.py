import pytest

from socket2me_flask.relay.tokens import fold_name, is_name, is_token, new_token


def test_a_token_has_24_characters_and_starts_with_a_letter():
    """A token is 24 characters of a-z0-9, a letter first, and no two are alike."""
    tokens = {new_token() for _ in range(1000)}
    assert len(tokens) == 1000
    for token in tokens:
        assert len(token) == 24
        assert token[0].isalpha()
        assert is_token(token)
    assert set("".join(tokens)) == set("abcdefghijklmnopqrstuvwxyz0123456789")


def test_what_is_no_token():
    """Anything else is refused by its form alone."""
    token = new_token()
    for text in ("", "ab", token.upper(), token[:-1] + "é", token + "\n", *NO_NAMES):
        assert not is_token(text)


NO_NAMES = [
    *("", "a", "ab", "-", "---", "-abc", "abc-", "a--b-c", "a_b_c", "a.b.c", "a b c", "a/b", "abc\n", "abc\0"),
    *("ébc", "ab\u212a", "ab\u017f", "\uff41\uff42\uff43", "ab\u0131", "ab\u0131", "аcme", "ab\u00ad", "a%62c"),
    *("a" * 64, "a-" * 63 + "a", "a" * 10_000, "a-" * 5000 + "a"),
]


@pytest.mark.parametrize("name", ["abc", "acme-dev", "4x4", "0-0-0", "a" * 63, "-".join("a" * 63), "1" * 24])
def test_what_is_a_name(name):
    """Letters and digits, 3 to 63 of them, with single hyphens between; and each name has the form of a token."""
    assert is_name(name)
    assert is_token(name)
    assert fold_name(name) == fold_name(name.upper()) == name


@pytest.mark.parametrize("text", NO_NAMES)
def test_what_is_no_name(text):
    """Nor is what Unicode folds to ASCII: the Kelvin sign, the long s, full-width letters."""
    assert not is_name(text)
    assert fold_name(text) is None


def test_what_looks_like_a_token_is_no_name():
    """In any case: a letter and 23 letters or digits. One more, one less, or a hyphen make a name."""
    token = new_token()
    assert not is_name(token)
    assert fold_name(token) is fold_name(token.upper()) is fold_name(token.title()) is None
    for name in (token[:-1], token + "a", "1" + token[1:], f"{token[:9]}-{token[9:]}"):
        assert is_name(name)
