"""The command of `socket2me listen --exec`: one process for each request, which its exit status acknowledges.

Nothing of a request is part of the command line, the name of a file or a shell's text: it is in files of a private
folder, and in variables.
"""

import contextlib
import json
import math
import os
import shlex
import shutil
import signal
import subprocess
import tempfile
import threading
import time
from collections.abc import Collection
from functools import partial
from pathlib import Path
from typing import IO, Any

from ..exceptions import BadArgument, CommandFailed, Dropped, NotHandled, TargetSlow
from ..local_app.target import MAX_ANSWER_BYTES, Answer
from ..request import Request

# The variables that every command gets, if they are set. What else is in the environment of `listen`, such as the
# secret and the key of a relay, is passed by `--exec-env` only.
INHERITED = tuple(
    "HOME LANG LANGUAGE LC_ALL LC_CTYPE LOGNAME PATH SHELL TMPDIR TZ USER".split()
    # Without these no program starts on Windows.
    + "COMSPEC PATHEXT SYSTEMDRIVE SYSTEMROOT TEMP TMP USERPROFILE WINDIR".split()
)

# A variable has no more of a value; the file of the event has all of it. Linux takes 128 KB in one.
MAX_VARIABLE_CHARACTERS = 4096

# How much is kept of what a command writes to stderr: its end.
MAX_STDERR_BYTES = 2000

# What of that is printed.
MAX_STDERR_CHARACTERS = 200

# How long a process group has between SIGTERM and SIGKILL.
KILL_SECONDS = 2.0

# How long the output of a command that has ended is read: a process that left its group may hold it open.
OUTPUT_SECONDS = 1.0

_PIECE_BYTES = 65_536


class Command:
    """The command of `--exec`: run once for each request. Several threads may run it at once.

    Parameters:
        text: the command line, split as a shell splits it; no shell runs it.
        timeout_seconds: how long it may take.
        variables: names of further variables of this process's environment that it gets.

    Raises `BadArgument` if there is no such program, the command line cannot be split, or a variable is not set.
    """

    def __init__(self, text: str, *, timeout_seconds: float, variables: Collection[str] = ()) -> None:
        arguments, program = split_command(text)
        for name in variables:
            if name not in os.environ:
                raise BadArgument(f"--exec-env: there is no variable {name}.")
        self.name = f"exec {shlex.join(arguments)}"
        self._arguments = [program, *arguments[1:]]
        self._environment = {name: os.environ[name] for name in (*INHERITED, *variables) if name in os.environ}
        self._timeout_seconds = timeout_seconds
        self._running: set[_Group] = set()
        self._is_closed = False

    def close(self, seconds: float = KILL_SECONDS) -> None:
        """End what runs: by SIGTERM, and after so many seconds by SIGKILL. What starts from then on is killed."""
        self._is_closed = True
        groups = list(self._running)
        for group in groups:
            group.end()
        until = time.monotonic() + seconds
        for group in groups:
            group.has_ended.wait(max(0, until - time.monotonic()))
            group.kill()

    def where(self, request: Request) -> str:
        """Return what a request is given to, for people."""
        return self.name

    def send(self, request: Request) -> Answer:
        """Run the command for a request. Status 0 acknowledges it; then what it printed is the answer's body.

        It may take as long as the timeout, or until the request's deadline if that is sooner; then its process
        group is ended. What it has started and left behind is ended with it. Raises `CommandFailed`, `TargetSlow`,
        `NotHandled` if the files cannot be written, or `Dropped` if the request is cancelled meanwhile.
        """
        try:
            with tempfile.TemporaryDirectory(prefix="socket2me-", ignore_cleanup_errors=True) as folder:
                variables = _write(Path(folder), request)
                return self._run(request, Path(variables["SOCKET2ME_BODY_FILE"]), variables)
        except OSError as error:
            raise NotHandled(f"the command cannot be run: {error.strerror or error}.") from None

    def _run(self, request: Request, body_file: Path, variables: dict[str, str]) -> Answer:
        started = time.monotonic()
        seconds = min(self._timeout_seconds, (request.deadline or math.inf) - started)
        if seconds <= 0:
            raise TargetSlow("there was no time left to run the command.")
        with body_file.open("rb") as stdin:
            process = subprocess.Popen(  # noqa: S603  # the command is the user's own, and nothing of the request
                self._arguments,
                stdin=stdin,
                stdout=subprocess.PIPE,
                stderr=subprocess.PIPE,
                env={**self._environment, **variables},
                start_new_session=True,
            )
        group = _Group(process)
        self._running.add(group)
        if self._is_closed:  # meanwhile: `close` did not see it
            group.kill()
        outputs = [_Output(process.stdout, MAX_ANSWER_BYTES + 1), _Output(process.stderr, MAX_STDERR_BYTES, True)]
        timer = threading.Timer(seconds, partial(group.end, is_late=True))
        timer.daemon = True
        timer.start()
        try:
            with request.cancellation.calling(group.end):
                group.wait()
        finally:
            timer.cancel()
            self._running.discard(group)
        written, complained = (output.result() for output in outputs)
        if request.cancellation.is_set:
            raise Dropped("it was dropped from its mailbox.")
        if group.is_late:
            raise TargetSlow(f"the command took longer than {seconds:.3g} s, and was ended.")
        if process.returncode != 0:
            raise CommandFailed(_how_it_ended(process.returncode), detail=_last_line(complained))
        body = written[:MAX_ANSWER_BYTES]
        return Answer(200, [("Content-Type", _type_of(body))] if body else [], body, len(written) > len(body))


class _Group:
    """The process group of a command that runs."""

    def __init__(self, process: "subprocess.Popen[bytes]") -> None:
        self._process = process
        self._lock = threading.Lock()
        self.has_ended = threading.Event()
        self.is_late = False

    def end(self, is_late: bool = False) -> None:
        """Have it ended, from any thread: by SIGTERM, and by SIGKILL if that does not do. Does not wait for it."""
        with self._lock:
            if self.has_ended.is_set():
                return
            self.is_late = self.is_late or is_late
            self._signal("SIGTERM")
        killer = threading.Timer(KILL_SECONDS, self.kill)
        killer.daemon = True
        killer.start()

    def wait(self) -> None:
        """Wait for the command, and kill what it has left behind."""
        if hasattr(os, "waitid"):
            # It stays a zombie until its group was killed, so that no other process can have its number meanwhile.
            os.waitid(os.P_PID, self._process.pid, os.WEXITED | os.WNOWAIT)
        else:
            self._process.wait()
        with self._lock:
            self._signal("SIGKILL")
            self._process.wait()
            self.has_ended.set()

    def kill(self) -> None:
        """End it by SIGKILL, from any thread, unless it has ended."""
        with self._lock:
            if not self.has_ended.is_set():
                self._signal("SIGKILL")

    def _signal(self, name: str) -> None:
        with contextlib.suppress(ProcessLookupError, PermissionError):
            if hasattr(os, "killpg"):
                os.killpg(self._process.pid, getattr(signal, name))
            else:  # Windows has neither groups of this kind nor SIGKILL
                self._process.terminate()


class _Output:
    """Reads what a process writes, all of it, and keeps the first so many bytes, or the last."""

    def __init__(self, stream: IO[bytes] | None, limit: int, is_end: bool = False) -> None:
        if stream is None:
            raise RuntimeError("the process has no pipe for its output")
        self._stream = stream
        self._limit = limit
        self._is_end = is_end
        self._kept = bytearray()
        self._reader = threading.Thread(target=self._read, daemon=True)
        self._reader.start()

    def result(self) -> bytes:
        """Return what was kept, once the process has ended."""
        self._reader.join(OUTPUT_SECONDS)
        return bytes(self._kept)

    def _read(self) -> None:
        with self._stream:
            while piece := os.read(self._stream.fileno(), _PIECE_BYTES):
                if self._is_end:
                    self._kept = (self._kept + piece)[-self._limit :]
                else:
                    self._kept += piece[: self._limit - len(self._kept)]


def split_command(text: str) -> tuple[list[str], str]:
    """Return the words of a command line, and the path of its program.

    Raises `BadArgument` if there is no such program, or the text cannot be split.
    """
    try:
        arguments = shlex.split(text, posix=os.name == "posix")
    except ValueError as error:
        raise BadArgument(f"the command cannot be split into words: {error}.") from None
    if not arguments:
        raise BadArgument("it names no command.")
    program = shutil.which(arguments[0])
    if program is None:
        raise BadArgument(f"there is no command {arguments[0]} that can be run.")
    return arguments, os.path.abspath(program)


def event_of(request: Request) -> dict[str, Any]:
    """Return what the file of an event says of a request, as JSON; its body is in a file of its own."""
    return {
        "id": request.id,
        "method": request.method,
        "path": request.path,
        "query": request.query,
        "headers": dict(request.headers),
        "size": len(request.body),
        "received_at": request.received_at,
        "remote_addr": request.remote_addr,
        "replay_of": request.replay_of,
        "verified": request.verified,
        "attempt": request.attempt,
    }


def _write(folder: Path, request: Request) -> dict[str, str]:
    """Write the files of a request into a private folder, and return the variables for its command."""
    body_file, event_file = folder / "body", folder / "event.json"
    body_file.write_bytes(request.body)
    event_file.write_text(json.dumps(event_of(request)), encoding="utf-8")
    told = {
        "ID": request.id,
        "METHOD": request.method,
        "PATH": request.path,
        "QUERY": request.query,
        "CONTENT_TYPE": request.headers.get("content-type", ""),
        "REMOTE_ADDR": request.remote_addr,
        "ATTEMPT": str(request.attempt or 1),
        "VERIFIED": request.verified or "",
        "REPLAY_OF": request.replay_of,
    }
    return {
        **{f"SOCKET2ME_{name}": _variable(value) for name, value in told.items()},
        "SOCKET2ME_BODY_FILE": str(body_file),
        "SOCKET2ME_EVENT_FILE": str(event_file),
    }


def _variable(value: str) -> str:
    """Return a value as an environment may have it: bounded, without NUL and without half characters."""
    text = value[:MAX_VARIABLE_CHARACTERS].replace("\0", "\ufffd")
    return text.encode("utf-8", "replace").decode()


def _how_it_ended(status: int) -> str:
    if status > 0:
        return f"the command ended with status {status}."
    try:
        return f"the command was ended by {signal.Signals(-status).name}."
    except ValueError:
        return f"the command was ended by signal {-status}."


def _last_line(data: bytes) -> str:
    lines = data.decode(errors="replace").strip().splitlines()
    return lines[-1].strip()[:MAX_STDERR_CHARACTERS] if lines else ""


def _type_of(body: bytes) -> str:
    """Return the content type of what a command has printed: JSON, text or neither."""
    try:
        text = body.decode()
    except UnicodeDecodeError:
        return "application/octet-stream"
    if text.lstrip()[:1] in ("{", "["):
        with contextlib.suppress(ValueError, RecursionError):
            json.loads(text)
            return "application/json"
    return "text/plain; charset=utf-8"
