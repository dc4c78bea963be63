"""Print the page of the HTTP API that its OpenAPI document makes: `docs/http-api.md`.

python -m tests.support.http_api_page
"""

import json
from typing import Any

from socket2me_flask.api.openapi import build
from socket2me_flask.config import Settings

START = """\
# The HTTP API

`make docs` makes this page from the OpenAPI 3.1 document that each relay serves at `/openapi.json`. The document of
a relay follows its settings. This page has the defaults, with metrics and a store that keeps mailboxes.
[api.md](api.md) is the introduction, and has the event that a client receives.
"""

ADDED = """\
Where there is `GET` there is `HEAD`, with the same statuses and headers. Every path answers `OPTIONS` with `200`
and `Allow`, but for the paths of calls, which forward these methods as well.
"""

SECURITY = {
    "": "",
    "apiKey": "Needs `Authorization: Bearer` with one of `SOCKET2ME_API_KEYS`, if that is set.",
    "secret?": "Needs `Authorization: Bearer` with the secret of the token, if it has one.",
    "secret": "Needs `Authorization: Bearer` with the secret of the token.",
    "metricsKey": "Needs `Authorization: Bearer` with `SOCKET2ME_METRICS_KEY`.",
}


def render() -> str:
    """Return the page."""
    document = build(Settings(metrics_key="key"), keeps_mailboxes=True)
    parts = [START, document["info"]["description"], ADDED]
    any_request = document["components"]["responses"]
    parts.append(
        "## Any request\n\nEach request may be answered with these errors. The paths below do not repeat them.\n"
    )
    parts.append(_table((name[3:], any_request[name]) for name in any_request if name.startswith("Any")))
    for tag in document["tags"]:
        parts.append(f"## {tag['name'].capitalize()}\n\n{tag['description']}\n")
        if tag["name"] == "original":
            parts.append(_same_paths(document))
            continue
        for path, item in document["paths"].items():
            parts += _path(document, tag["name"], path, item)
    parts.append("## Members of objects\n")
    for name, schema in document["components"]["schemas"].items():
        if schema.get("type") == "object":
            parts.append(f"### {name}\n\n{_members(schema)}")
    return "\n".join(part.strip("\n") + "\n" for part in parts)


def _path(document: dict[str, Any], tag: str, path: str, item: dict[str, Any]) -> list[str]:
    """Return the operations of a path, those that are the same together."""
    found: dict[str, list[str]] = {}
    operations: dict[str, dict[str, Any]] = {}
    for method, operation in item.items():
        is_added = tag != "calls" and method in ("head", "options")
        if method == "parameters" or is_added or operation["tags"] != [tag]:
            continue
        found.setdefault(operation["summary"], []).append(method.upper())
        operations[operation["summary"]] = operation
    parts = []
    for summary, methods in found.items():
        operation = operations[summary]
        parts.append(f"### {', '.join(methods)} `{path}`\n\n{summary}")
        parts.append(operation.get("description", ""))
        parts.append(_security(operation))
        schema = operation.get("requestBody", {}).get("content", {}).get("application/json", {}).get("schema")
        if schema is not None:
            parts.append(
                f"The body is JSON by this JSON Schema, or empty:\n\n```json\n{json.dumps(schema, indent=2)}\n```"
            )
        responses = [(status, _resolved(document, response)) for status, response in operation["responses"].items()]
        parts.append(_table(_specific(document, responses)))
    return [part for part in parts if part]


def _specific(document: dict[str, Any], responses: list[tuple[str, dict[str, Any]]]) -> Any:
    """Yield what of the responses not every request may have."""
    shared = document["components"]["responses"]
    for status, response in responses:
        common = shared.get(f"Any{status}", {}).get("description", "").split("\n\n")
        lines = [line for line in response["description"].split("\n\n") if line not in common]
        if lines:
            yield status, {**response, "description": "\n\n".join(lines)}


def _resolved(document: dict[str, Any], response: dict[str, Any]) -> dict[str, Any]:
    name = response.get("$ref", "").rpartition("/")[2]
    found: dict[str, Any] = document["components"]["responses"][name] if name else response
    return found


def _security(operation: dict[str, Any]) -> str:
    security = operation["security"]
    names = [name for wanted in security for name in wanted]
    if names == ["secret"] and {} in security:
        names = ["secret?"]
    return SECURITY["".join(names)]


def _table(responses: Any) -> str:
    lines = ["| status | meaning |", "|---|---|"]
    for status, response in responses:
        content = response.get("content", {})
        schemas = [part["schema"].get("$ref", "").rpartition("/")[2] for part in content.values()]
        schema = next((name for name in schemas if name not in ("", "Error", "Token")), "")
        headers = [name for name in ("Retry-After", "WWW-Authenticate") if name in response.get("headers", {})]
        words = [*response["description"].split("\n\n")]
        words += [f"JSON: [{schema}](#{schema.lower()})."] if schema else []
        words += [f"Has `{'` and `'.join(headers)}`."] if headers else []
        lines.append(f"| {'other' if status == 'default' else f'`{status}`'} | {'<br>'.join(words)} |")
    return "\n".join(lines)


def _same_paths(document: dict[str, Any]) -> str:
    paths = [path for path, item in document["paths"].items() if any(_is_original(part) for part in item.values())]
    return "These are as the paths under `/v1`:\n\n" + "\n".join(f"- `{path}`" for path in paths)


def _is_original(part: Any) -> bool:
    return isinstance(part, dict) and part["tags"] == ["original"]


def _members(schema: dict[str, Any]) -> str:
    lines = ["| member | type | meaning |", "|---|---|---|"]
    for name, member in schema["properties"].items():
        kind = member.get("$ref", "").rpartition("/")[2] or member.get("type") or json.dumps(member.get("enum"))
        kind = f"list of {member['items']['$ref'].rpartition('/')[2]}" if kind == "array" else kind
        kind = " or ".join(kind) if isinstance(kind, list) else kind
        lines.append(f"| `{name}` | {kind} | {member.get('description', '')} |")
    return "\n".join(lines)


if __name__ == "__main__":
    print(render(), end="")
