"""Requests in files: each is what HTTP/1.1 sends, so that it reads well and nothing is lost; and a curl command."""

import re
import shlex
import tempfile
import time
from pathlib import Path

from .exceptions import ClientError, OutsideTarget
from .request import Request
from .target import Target, is_header_name

_FIRST_LINE = re.compile(rb"(\S+) (\S*) HTTP/1\.1").fullmatch


def prepare(folder: Path) -> None:
    """Make the folder for `save`, if it is not there. Raises `OSError` if nothing can be written there."""
    folder.mkdir(mode=0o700, parents=True, exist_ok=True)
    with tempfile.TemporaryFile(dir=folder):
        pass


def save(folder: Path, request: Request, target: Target) -> Path:
    """Write a request as `<when>-<id>.http`, and next to it, as `.sh`, the curl command that sends it to `target`.

    There is no command for a request that `target` would not send. Both are for their owner only. Returns the path
    of the first.
    """
    folder.mkdir(mode=0o700, parents=True, exist_ok=True)
    when = time.strftime("%Y%m%d-%H%M%S", time.gmtime(request.received_at))
    path = folder / f"{when}-{re.sub(r'[^0-9A-Za-z-]', '_', request.id)[:80]}.http"
    _write(path, to_bytes(request))
    try:
        script = _curl(path.name, request, target)
    except OutsideTarget:
        return path
    _write(path.with_suffix(".sh"), script)
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


def _curl(name: str, request: Request, target: Target) -> bytes:
    """Return a shell script. What curl would add is turned off, unless the request had it.

    Raises `OutsideTarget`.
    """
    url = target.origin + target.checked(request)
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
    command = " ".join(map(shlex.quote, ["curl", *options]))
    if request.body:
        command = (
            f'tail -c {len(request.body)} "$(dirname "$0")"/{shlex.quote(name)} |\n  {command} --data-binary @-'
        )
    return f"#!/bin/sh\n{command} {shlex.quote(url)}\n".encode("latin-1", errors="replace")


def _write(path: Path, data: bytes) -> None:
    path.touch(mode=0o600)
    path.write_bytes(data)
