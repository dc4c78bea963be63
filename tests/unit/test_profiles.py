"""`socket2me.toml`, the user's `config.toml`, and `socket2me config`: what a command takes, and what it refuses."""

import json
import os
import re

import click
import pytest
from click.testing import CliRunner

from socket2me.cli import main
from socket2me.cli.commands import Command
from socket2me.cli.profiles import MAX_BYTES

FILE = "socket2me.toml"


@pytest.fixture
def home(tmp_path, monkeypatch):
    """Have an empty current folder, and a home without files."""
    for variable in ("XDG_CONFIG_HOME", "XDG_STATE_HOME"):
        monkeypatch.setenv(variable, str(tmp_path / variable))
    for name in list(os.environ):
        if name.startswith("SOCKET2ME_") or name in ("PORT", "REDIS_URL"):
            monkeypatch.delenv(name)
    folder = tmp_path / "folder"
    folder.mkdir()
    monkeypatch.chdir(folder)
    return tmp_path


def write(path, text, mode=0o600):
    path.parent.mkdir(parents=True, exist_ok=True)
    path.write_text(text)
    path.chmod(mode)


def write_both(home, of_folder, of_user):
    write(home / "folder" / FILE, of_folder)
    write(home / "XDG_CONFIG_HOME" / "socket2me" / "config.toml", of_user)


def run(*arguments, **environment):
    return CliRunner().invoke(main, arguments, env=environment)


def shown(*arguments, **environment):
    """Return what `socket2me config` shows of a command: value and origin by key."""
    result = run("config", *arguments, **environment)
    assert result.exit_code == 0, result.output
    return {
        key: (value, origin)
        for key, value, origin in re.findall(r"^  (\S+) +(\S+(?: \S+)*)  +(\S.*)$", result.output, re.MULTILINE)
    }


def test_flags_beat_variables_and_these_beat_files(home):
    """The folder's file beats the user's, and a profile of either what stands outside of profiles."""
    write_both(
        home,
        'server = "http://folder"\n[profiles.a]\nserver = "http://folder.a"\n[profiles.b.status]\n',
        'server = "http://user"\n[profiles.a]\nserver = "http://user.a"\n[profiles.c]\nserver = "http://user.c"\n',
    )

    def relay_of(*arguments, **environment):
        return re.search("No URL is kept for (.*)[.] ", run("status", *arguments, **environment).output)[1]

    variable = {"SOCKET2ME_SERVER": "http://variable"}
    assert relay_of("--server", "http://flag", "--profile", "a", **variable) == "http://flag"
    assert relay_of("--profile", "a", **variable) == "http://variable"
    assert relay_of("--profile", "a") == "http://folder.a"
    assert relay_of("--profile", "b") == "http://folder"
    assert relay_of(SOCKET2ME_PROFILE="c") == "http://user.c"
    assert relay_of() == "http://folder"
    (home / "folder" / FILE).unlink()
    assert relay_of() == "http://user"


def test_each_value_and_where_it_comes_from(home):
    """`socket2me config` shows both, and no secret."""
    write_both(
        home,
        '[listen]\nparallel = 3\nonly = ["POST /a", "/b"]\n[profiles.work.listen]\nverify = "github=hidden1"\n',
        'api-key = "hidden2"\ntarget = 3000\n[serve]\nport = 9000\nstore = "redis://:hidden3@redis/0"\n',
    )
    user = home / "XDG_CONFIG_HOME" / "socket2me" / "config.toml"
    listen = shown("listen", "--profile", "work", SOCKET2ME_SECRET="hidden4", SOCKET2ME_SERVER="http://x")
    assert listen["server"] == ("http://x", "SOCKET2ME_SERVER")
    assert listen["secret"] == ("***", "SOCKET2ME_SECRET")
    assert listen["verify"] == ("***", f"{FILE} [profiles.work.listen]")
    assert listen["only"] == ("POST /a, /b", f"{FILE} [listen]")
    assert listen["parallel"] == ("3", f"{FILE} [listen]")
    assert listen["target"] == ("3000", str(user))
    assert listen["api-key"] == ("***", str(user))
    assert listen["timeout"] == ("20.0", "default")
    assert listen["url"] == ("-", "not set")
    serve = shown("serve", PORT="9001")
    assert serve["port"] == ("9001", "PORT")
    assert serve["store"] == ("***", f"{user} [serve]")
    assert serve["api-key"] == ("-", "not set")  # that of the relay, which is not the key for a relay
    everything = run("config", "--profile", "work").output
    assert "hidden" not in everything
    assert {f"\n{name}\n" in everything for name in ("listen", "events", "check", "serve")} == {True}


def test_values_that_their_options_do_not_take(home):
    """`socket2me config` marks each with the reason, shows no secret, makes no folder, and ends with status 2."""
    write_both(
        home,
        'server = "nonsense"\n[listen]\nheader-add = ["A: b", "hidden"]\nparallel = 0\nonly = "body.$..x"\n'
        'save = "made"\nas = "a b"\ntimeout = 5\n[profiles.good.listen]\nparallel = 3\n',
        '[listen]\nexec = "there-is-none"\ntarget = "x:y"\n',
    )
    result = run("config", "listen", "--profile", "good", SOCKET2ME_API_KEY="a hidden")
    assert result.exit_code == 2
    found = dict(re.findall(r"^  (\S+) .*  INVALID: (.*)$", result.output, re.MULTILINE))
    assert found == {
        "target": "The target is like http://localhost:3000/hooks, and not x:y.",
        "server": "The relay's address is like https://relay.example, and not nonsense.",
        "api-key": "This is no key or secret: those are printable ASCII characters, without spaces.",
        "as": "'a b' is no id of a listener: up to 64 of A-Z, a-z, 0-9, '.', '_' and '-'.",
        "exec": "there is no command there-is-none that can be run.",
        "header-add": "the option does not take this.",
        "only": 'A path goes on with .name, ["name"], [0], .* or [*]. (column 7)',
    }
    assert "hidden" not in result.output
    assert not (home / "folder" / "made").exists()
    assert run("config", "serve").exit_code == 0
    result = run("config", "serve", PORT="x")
    assert (result.exit_code, "PORT  INVALID: 'x' is not" in result.output) == (2, True)
    result = run("status")
    assert (result.exit_code, f"It is that of {FILE}." in result.output) == (2, True)


@pytest.mark.parametrize(
    ("text", "line"),
    [
        ('servr = "x"', "it has 'servr', which it does not take. The nearest is 'server'."),
        ("[listn]", "it has 'listn', which it does not take. The nearest is 'listen'."),
        ("[profile.a]", "it has 'profile', which it does not take. The nearest is 'profiles'."),
        ("[listen]\nparalel = 3", "[listen] has 'paralel', which it does not take. The nearest is 'parallel'."),
        ("[profiles.a]\nkey = 1", "[profiles.a] has 'key', which it does not take. The nearest is 'api-key'."),
        (
            "[profiles.a.listen]\nonyl = 1",
            "[profiles.a.listen] has 'onyl', which it does not take. The nearest is 'only'.",
        ),
        ('[listen]\nreply = "yes"', "listen.reply takes true or false."),
        ("[listen]\nonly = [true]", "listen.only takes a text or a number, or a list of them."),
        ("server = ['a']", "server takes a text or a number."),
        ("listen = 1", "[listen] is a table of options."),
        ("profiles = 1", "profiles is a table of tables."),
        ("profiles.a = 1", "[profiles.a] is a table."),
        ('"\\u001b[2J" = 1', "it has '\\x1b[2J', which it does not take."),
        ("target = [1", "cannot be read: Unclosed array"),
        ("server = 1\n" * 2, "cannot be read: Cannot overwrite a value (at line 2"),
        ("a = " + "[" * 100_000, "cannot be read: "),
        ("#" * (MAX_BYTES + 1), f"cannot be read: it has more than {MAX_BYTES} bytes"),
    ],
)
def test_a_file_that_makes_no_sense(home, text, line):
    """The line names the file, the key and the nearest that there is; nothing is sent, and the status is 2."""
    write(home / "folder" / FILE, text)
    result = run("listen", "3000", "--server", "http://127.0.0.1:1")
    assert result.exit_code == 2
    assert result.output.startswith(f"Error: {FILE}")
    assert line in result.output
    assert "\x1b" not in result.output
    assert run("config").exit_code == 2


def test_a_value_that_an_option_does_not_take(home):
    """The line has the file and the table, too."""
    write(home / "folder" / FILE, 'server = "http://x"\n[profiles.a.listen]\nparallel = "many"\n')
    result = run("listen", "3000", "--profile", "a")
    assert result.exit_code == 2
    assert f"'many' is not a valid integer range. It is that of {FILE} [profiles.a.listen]." in result.output


def test_a_profile_that_there_is_not(home):
    """The line names the nearest, or that there are none."""
    assert (
        "There is no profile 'wrok'. socket2me.toml may have profiles." in run("status", "--profile", "wrok").output
    )
    write(home / "folder" / FILE, "[profiles.work]\n[profiles.home]\n")
    for command in ("status", "config"):
        result = run(command, "--profile", "wrok")
        assert (result.exit_code, result.output) == (
            2,
            "Error: There is no profile 'wrok'. The nearest is 'work'.\n",
        )


def test_a_file_of_others(home, monkeypatch):
    """What another user may have written in the folder is not read, and a key that others read is warned of."""
    file = home / "folder" / FILE
    write(file, 'server = "http://folder"\n', mode=0o666)
    unread = f"{FILE} is not read: it belongs to another user, or others may write to it.\n"
    assert run("status").output == f"{unread}No URL is kept. `socket2me listen` asks for one.\n"
    file.chmod(0o644)
    assert "kept for http://folder." in run("status").output
    if os.getuid() == 0:
        os.chown(file, 1, 1)
    else:
        monkeypatch.setattr(os, "getuid", lambda: file.stat().st_uid + 1)
    assert unread in run("status").output


def test_a_pipe_or_a_folder_in_the_place_of_a_file(home):
    """No command waits for what may come out of it: the line says that it is no file."""
    file = home / "folder" / FILE
    os.mkfifo(file, 0o600)
    writer = os.open(file, os.O_RDWR)  # so that a command that reads it is given something
    os.write(writer, b"#")
    try:
        result = run("status")
    finally:
        os.close(writer)
    assert (result.exit_code, result.output) == (2, f"Error: {FILE} cannot be read: it is no file.\n")
    file.unlink()
    file.mkdir()
    assert run("status").output == result.output


def test_a_key_that_others_may_read(home):
    """A warning says how to hide it, once; the command runs."""
    warning = f"{FILE} has a key, and other users may read it: chmod 600 {FILE}\n"
    for text, mode, is_warned in (
        ('api-key = "a"', 0o644, True),
        ('[profiles.a.listen]\nsecret = "a"', 0o640, True),
        ('api-key = "a"', 0o600, False),
        ('server = "http://x"', 0o644, False),
    ):
        write(home / "folder" / FILE, text, mode)
        for command in ("status", "config"):
            result = run(command)
            assert result.exit_code == 0
            assert result.output.count(warning) == is_warned


def test_the_file_of_a_folder_runs_no_program(home):
    """`exec` is for the user's own file: who enters a folder of others runs nothing of theirs."""

    @click.command(cls=Command, example="example")
    @click.option("--exec", "program")
    @click.argument("targets", nargs=-1)
    def example(program, targets):
        click.echo(f"{program} {targets}")

    @click.group()
    def root():
        pass

    root.add_command(example)
    write_both(home, "[example]\n", '[example]\nexec = "mine"\n')
    assert CliRunner().invoke(root, ["example"]).output == "mine ()\n"
    write_both(home, '[example]\nexec = "theirs"\n', 'target = ["a", "b"]\n')
    result = CliRunner().invoke(root, ["example"])
    assert result.exit_code == 2
    assert "exec is for the file of your own, " in result.output
    (home / "folder" / FILE).unlink()
    assert CliRunner().invoke(root, ["example"]).output == "None ('a', 'b')\n"


@pytest.mark.parametrize(
    "value", ["github=@/etc/hostname", "@/etc/hostname", " @x", "github=env:HOME", ["github=a", "github=env:HOME"]]
)
def test_the_file_of_a_folder_sends_no_file_and_no_variable(home, value):
    """It may name the relay that `--verify` sends secrets to: those of the user are for the user's own file."""
    text = f"[listen]\nverify = {json.dumps(value)}\n"
    write(
        home / "folder" / FILE,
        f'server = "http://127.0.0.1:1"\n[profiles.a]\n{text.replace("listen", "profiles.a.listen")}',
    )
    result = run("listen", "3000", "--profile", "a")
    assert result.exit_code == 2
    assert "verify with @FILE or env:NAME is for the file of your own, " in result.output
    write_both(home, '[listen]\nverify = "github=a@env:b"\n', text)
    assert shown("listen")["verify"] == ("***", f"{FILE} [listen]")


def test_a_profile_that_a_shell_would_obey_is_not_completed(home):
    """bash puts what is offered into the command line as it is."""
    names = ["work", "a.b-c", "caf\u00e9", "$(id)", "`id`", "a b", "a;id", "a\u001b[2J", "-x", ""]
    write(home / "folder" / FILE, "".join(f"[profiles.{json.dumps(name)}]\n" for name in names))
    asked = {"_SOCKET2ME_COMPLETE": "bash_complete", "COMP_WORDS": "socket2me listen --profile ", "COMP_CWORD": "3"}
    result = CliRunner().invoke(main, [], env=asked, prog_name="socket2me")
    assert result.output.splitlines() == ["plain,a.b-c", "plain,caf\u00e9", "plain,work"]
