"""`socket2me completion`, in the shells."""

import os
import pty
import select
import shutil
import subprocess
import time

import pytest

from tests.support.servers import DEADLINE_SECONDS, clean_environment


def needs(shell):
    return pytest.mark.skipif(shutil.which(shell) is None, reason=f"{shell} is not installed")


@pytest.fixture
def environment(tmp_path):
    (tmp_path / "socket2me.toml").write_text("[profiles.staging]\n")
    home = {"HOME": str(tmp_path), "XDG_CONFIG_HOME": str(tmp_path), "TERM": "dumb", "PS1": "> "}
    return {**clean_environment(), **home}


@pytest.mark.parametrize(
    ("command", "setup"),
    [
        pytest.param(["bash", "--norc", "--noprofile", "-i"], "", marks=needs("bash")),
        pytest.param(["zsh", "-f", "-i"], "autoload -U compinit && compinit -u -D && ", marks=needs("zsh")),
    ],
)
def test_the_tab_key(tmp_path, environment, command, setup):
    """In a terminal, Tab completes a command, an option and a profile."""
    master, terminal = pty.openpty()
    with subprocess.Popen(
        command,
        cwd=tmp_path,
        env=environment,
        stdin=terminal,
        stdout=terminal,
        stderr=terminal,
        start_new_session=True,
    ) as shell:
        os.close(terminal)
        shown = b""
        try:

            def type_and_expect(text, expected):
                nonlocal shown
                shown = b""
                os.write(master, text.encode())
                deadline = time.monotonic() + DEADLINE_SECONDS
                while expected not in shown:
                    assert select.select([master], [], [], max(0, deadline - time.monotonic()))[0], shown
                    shown += os.read(master, 65536)

            type_and_expect(f'{setup}eval "$(socket2me completion {command[0]})" && echo rea""dy\n', b"ready")
            type_and_expect("socket2me stat\t", b"socket2me status ")
            type_and_expect("--prof\t", b"--profile ")
            type_and_expect("sta\t", b"staging ")
            type_and_expect("\n", b"No URL is kept.")
        finally:
            shell.kill()
            os.close(master)


@needs("fish")
def test_fish(tmp_path, environment):
    """fish lists the commands, the options and the profiles that may follow."""
    asked = "; ".join(
        f"complete -C 'socket2me {text}'" for text in ("stat", "events sh", "serve --no-", "status --profile s")
    )
    script = f"socket2me completion fish | source; {asked}"
    result = subprocess.run(
        ["fish", "--no-config", "-c", script],
        cwd=tmp_path,
        env=environment,
        capture_output=True,
        text=True,
        check=True,
    )
    assert [line.partition("\t")[0] for line in result.stdout.splitlines()] == [
        "status",
        "show",
        "--no-require-secret",
        "staging",
    ]
