"""Requests in files: each is what HTTP/1.1 sends, so that it reads well and nothing is lost; and a curl command."""

import contextlib
import os
import re
import shlex
import tempfile
import time
from base64 import b64encode
from pathlib import Path

from ..exceptions import ClientError, OutsideTarget
from ..local_app.target import Target, is_header_name
from ..request import Request

_FIRST_LINE = re.compile(rb"(\S+) (\S*) HTTP/1\.1").fullmatch


def prepare(folder: Path) -> None:
    """Make the folder for `save`, if it is not there. Raises `OSError` if nothing can be written there."""
    folder.mkdir(mode=0o700, parents=True, exist_ok=True)
    with tempfile.TemporaryFile(dir=folder):
        pass


def save(folder: Path, request: Request, target: Target | None) -> Path:
    """Write a request as `<when>-<id>.http`, and next to it, as `.sh`, the curl command that sends it to `target`.

    There is no command without a target, or for a request that it would not send. Both are for their owner only,
    and have as their time when the relay received the request. Each is whole or not there. Returns the path of the
    first. Raises `OSError`.
    """
    folder.mkdir(mode=0o700, parents=True, exist_ok=True)
    when = time.strftime("%Y%m%d-%H%M%S", time.gmtime(request.received_at))
    path = folder / f"{when}-{re.sub(r'[^0-9A-Za-z-]', '_', request.id)[:80]}.http"
    _write(path, to_bytes(request), request.received_at)
    if target is not None:
        with contextlib.suppress(OutsideTarget):
            _write(path.with_suffix(".sh"), _curl(path.name, request, target), request.received_at)
    return path


def load(path: Path) -> Request:
    """Return the request of a file. Raises `ClientError` if there is none in it, and `OSError`."""
    return from_bytes(path.read_bytes(), path.name)


def to_bytes(request: Request) -> bytes:
    """Return a request as HTTP/1.1 sends it, under the path that follows the token; an empty one stays empty."""
    lines = [f"{request.method} {request.target} HTTP/1.1".encode()]
    lines += [f"{name}: {value}".encode("latin-1") for name, value in request.headers.items()]
    return b"\r\n".join([*lines, b"", request.body])


def from_bytes(data: bytes, name: str) -> Request:
    """Return the request that `to_bytes` wrote; `name` is for the error."""
    head, found, body = data.partition(b"\r\n\r\n")
    first, *lines = head.split(b"\r\n")
    match = _FIRST_LINE(first)
    if not found or match is None or not all(b": " in line for line in lines):
        raise ClientError(f"{name} holds no request.")
    path, _, query = match[2].decode().partition("?")
    headers = dict(line.decode("latin-1").split(": ", 1) for line in lines)
    return Request(match[1].decode(), path, query, headers, body)


def curl_command(request: Request, target: Target) -> str:
    """Return a curl command for a POSIX shell that sends a request to `target`, of printable ASCII only.

    So nothing in it can end a quote, or obey a terminal that it is pasted into. Raises `OutsideTarget`.
    """
    options, url = _options(request, target)
    words = " ".join(map(_quoted, ["curl", *options]))
    if not request.body:
        return f"{words} {_quoted(url)}"
    if request.body.isascii() and (text := request.body.decode("ascii")).isprintable():
        return f"{words} --data-raw {shlex.quote(text)} {_quoted(url)}"
    body = b64encode(request.body).decode()
    return f"printf %s {body} | base64 -d | {words} --data-binary @- {_quoted(url)}"


def _quoted(text: str) -> str:
    if text.isascii() and text.isprintable():
        return shlex.quote(text)
    escaped = (
        chr(byte) if chr(byte).isalnum() and byte < 128 else f"\\0{byte:03o}" for byte in text.encode("latin-1")
    )
    return f"\"$(printf %b '{''.join(escaped)}')\""


def _curl(name: str, request: Request, target: Target) -> bytes:
    """Return a shell script that sends a request, whose body is in the file `name`. Raises `OutsideTarget`."""
    options, url = _options(request, target)
    command = " ".join(map(shlex.quote, ["curl", *options]))
    if request.body:
        command = (
            f'tail -c {len(request.body)} "$(dirname "$0")"/{shlex.quote(name)} |\n  {command} --data-binary @-'
        )
    return f"#!/bin/sh\n{command} {shlex.quote(url)}\n".encode("latin-1", errors="replace")


def _options(request: Request, target: Target) -> tuple[list[str], str]:
    """Return the options of curl but for the body, and the URL. What curl would add is turned off."""
    url = target.where(request)
    # curl reads a header of another name from a file.
    headers = [(name, value) for name, value in target.headers_for(request) if is_header_name(name)]
    names = {name.lower() for name, _ in headers}
    options = ["--include", "--path-as-is", "--globoff", "--request", request.method]
    if request.method == "HEAD":
        options.append("--head")
    for header, value in headers:
        if header != "content-length" or not request.body:
            options += ["--header", f"{header}: {value}" if value else f"{header};"]
    for header in ("accept", "content-type", "expect", "user-agent"):
        if header not in names:
            options += ["--header", f"{header}:"]
    return options, url


def _write(path: Path, data: bytes, at: float) -> None:
    part = path.with_name(f"{path.name}.part")
    try:
        part.touch(mode=0o600)
        part.write_bytes(data)
        os.utime(part, (at, at))
        part.replace(path)
    except BaseException:
        with contextlib.suppress(OSError):
            part.unlink()
        raise
