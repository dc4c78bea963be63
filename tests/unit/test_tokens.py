from socket2me_flask.relay.tokens import is_token, new_token


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
    """Anything else is told apart by its form alone."""
    token = new_token()
    for text in (
        "",
        "abc",
        token[:-1],
        token + "a",
        token.upper(),
        "1" + token[1:],
        token[:-1] + "é",
        token + "\n",
    ):
        assert not is_token(text)
