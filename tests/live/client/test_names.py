"""`socket2me listen --name`: a URL of one's own, the same the next day, or an error."""

import json
import signal
import subprocess

import pytest
import requests

from socket2me.client.client import Client
from socket2me.client.http_api import RelayApi, Token
from socket2me.exceptions import RelayRefused
from socket2me.saved.token_file import SavedToken, SavedTokens
from tests.support.command import Command, until_attached
from tests.support.delivery import bearer
from tests.support.servers import BIN, clean_environment, wait_until

CLIENT_SECONDS = 20


def kept_in(home):
    return json.loads((home / "socket2me" / "tokens.json").read_text())


def run(home, *arguments):
    return subprocess.run(
        [BIN / "socket2me", *arguments],
        env={**clean_environment(), "HOME": str(home), "XDG_STATE_HOME": str(home)},
        capture_output=True,
        text=True,
        timeout=CLIENT_SECONDS,
        check=False,
    )


def test_the_name_is_kept_and_taken_again(relay, app, tmp_path):
    """By each start, also without `--name`. A stranger gets an error, and no other URL instead."""
    url = f"{relay.url}/v1/go/my-app"
    api = RelayApi(relay.url)
    for options in (("--name", "My-App"), ("--name", "my-app"), ()):
        command = Command(tmp_path, "listen", app.url, "--server", relay.url, "--json", *options)
        assert command.expect("url")["url"] == url
        command.expect("terms")
        until_attached(relay, command, tmp_path)
        assert relay.go("my-app", tail="/x").status_code == 200
        assert app.expect().line == "POST /x HTTP/1.1"
        assert command.end(signal.SIGINT)[0] == 0
        (kept,) = kept_in(tmp_path)
        assert kept["token"] == "my-app"
        stranger = run(tmp_path / "stranger", "listen", app.url, "--server", relay.url, "--name", "my-app")
        assert stranger.returncode == 1
        assert stranger.stderr.startswith(f"Error: The name my-app is taken at {relay.url}. If it is yours, ")
        assert "Traceback" not in stranger.stderr
        assert not (tmp_path / "stranger" / "socket2me").exists()
    api.delete(Token("my-app", kept["secret"]))


def test_a_name_that_is_lost_is_claimed_again_and_never_another(relay):
    """The library: after its end with the same secret; if it is another's by then, an error and no other URL."""
    api = RelayApi(relay.url)
    made, _ = api.new(mode="ack", mailbox=True, ttl_seconds=1, name="the-name")
    wait_until(lambda: relay.go("the-name").status_code == 404, "it ended")
    notices = []
    client = Client(relay.url, token="the-name", secret=made.secret, on_notice=notices.append)
    assert client.open() == f"{relay.url}/v1/go/the-name"
    assert client.secret == made.secret
    assert [notice.what for notice in notices] == ["name_ended", "token_new"]
    api.delete(made)
    other, _ = api.new(mode="ack", mailbox=True, ttl_seconds=1, name="the-name")
    wait_until(lambda: relay.go("the-name").status_code == 404, "it ended again")
    with pytest.raises(RelayRefused) as refused:
        Client(relay.url, token="the-name", secret=made.secret).open()
    assert refused.value.code == "name_taken"
    assert Client(relay.url, name="the-name", secret=other.secret).open() == client.url


@pytest.mark.parametrize(
    ("options", "status", "words"),
    [
        (["--name", "a_b"], 1, "does not give the name a_b: name is 3 to 63"),
        (["--name", "healthz"], 1, "does not give the name healthz: The name healthz is reserved"),
        (["--name", "abc", "--new"], 2, "--name goes without"),
    ],
)
def test_what_is_wrong_with_a_name_is_said(relay, app, tmp_path, options, status, words):
    """In a line, and nothing is kept."""
    done = run(tmp_path, "listen", app.url, "--server", relay.url, *options)
    assert done.returncode == status
    assert words in " ".join(done.stderr.split())
    assert list(tmp_path.iterdir()) == []


def test_the_secret_of_a_name_is_not_forgotten(tmp_path):
    """It stays when the app has another URL, and is one secret wherever the name is kept."""
    tokens = SavedTokens(tmp_path)
    for target, token, secret in [
        ("app", "acme", "one"),
        ("other", "acme", "two"),
        ("app", "aaaaaaaaaaaaaaaaaaaaaaaa", "x"),
        ("app", "bbbbbbbbbbbbbbbbbbbbbbbb", "y"),
    ]:
        tokens.keep(SavedToken("https://relay.example", target, token, secret))
    assert tokens.find("https://relay.example", "app").secret == "y"
    assert tokens.find_token("https://relay.example", "acme").secret == "two"
    assert sorted((kept.token[:4], kept.secret) for kept in tokens.all()) == [
        ("acme", "two"),
        ("acme", "two"),
        ("bbbb", "y"),
    ]


def test_several_clients_of_one_url(server, app, tmp_path):
    """`--listeners all`: each receives what its `--filter` asks for, by the name of `--as`; `status` lists them."""
    homes = [tmp_path / "ann", tmp_path / "bob"]
    common = ("listen", app.url, "--json")
    ann = Command(
        homes[0], *common, "--server", server.url, "--listeners", "all", "--as", "ann", "--filter", "POST /a*"
    )
    url = ann.expect("url")["url"]
    (kept,) = kept_in(homes[0])
    server.giveaways |= {kept["token"], kept["secret"]}
    until_attached(server, ann, homes[0])
    as_bob = ("--url", url, "--secret", kept["secret"], "--as", "bob", "--filter", "header.x-to:bob")
    bob = Command(homes[1], *common, *as_bob)
    bob.expect("connected")
    inspect = f"{server.url}/v1/tokens/{kept['token']}"
    wait_until(
        lambda: len(requests.get(inspect, headers=bearer(kept), timeout=5).json()["listeners"]) == 2, "both listen"
    )
    lines = run(homes[0], "status").stdout.splitlines()
    assert lines[1].startswith("  2 listeners, all, 0 requests taken, lives until ")
    assert [line.split(":")[0] for line in lines[2:]] == ["  ann", "  bob"]
    assert lines[2].endswith(", ack, 0 in flight, 0 waiting")
    for tail, headers, receivers in (("/a1", {}, 1), ("/b", {"X-To": "bob"}, 1), ("/a2", {"X-To": "bob"}, 2)):
        assert server.go(kept["token"], tail=tail, headers=headers).status_code == 200
        assert {app.expect().line for _ in range(receivers)} == {f"POST {tail} HTTP/1.1"}
    assert server.go(kept["token"], tail="/c").status_code == 503
    for command in (ann, bob):
        assert command.end()[0] == 0
    assert [json.loads(line)["path"] for line in ann.printed if '"request"' in line] == ["/a1", "/a2"]
    assert [json.loads(line)["path"] for line in bob.printed if '"request"' in line] == ["/b", "/a2"]
    refused = run(homes[0], "listen", app.url, "--server", server.url, "--listeners", "one")
    assert refused.returncode == 1
    assert "listeners" in refused.stderr


def test_a_relay_without_names_gives_no_other_url(server, app, tmp_path):
    """It says why, and `listen` ends."""
    done = run(tmp_path, "listen", app.url, "--server", server.url, "--name", "my-app")
    assert done.returncode == 1
    assert "SOCKET2ME_OPEN_NAMES" in done.stderr
    assert requests.post(f"{server.url}/v1/go/my-app", timeout=5).status_code == 404
