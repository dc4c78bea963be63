"""The files of `docs/deploy.md`: started where that is possible, and checked against the relay otherwise."""

import json
import os
import re
import shlex
import shutil
import subprocess
import tomllib

import pytest
import yaml

from socket2me_flask.config import from_env
from tests.support.servers import BIN, ROOT, Server, clean_environment, free_port, wait_until

DOCKERFILE = (ROOT / "Dockerfile").read_text().replace("\\\n", " ")
COMPOSE = yaml.safe_load((ROOT / "compose.yaml").read_text())
UNIT = ROOT / "deploy" / "socket2me.service"

# The most that `systemd-analyze security` may find exposed, in tenths of its scale from 0 to 10.
MAX_EXPOSURE = 15

# What makes every file system that the root is on read-only, for one process and its children.
READ_ONLY = "mount --bind / / && mount -o remount,ro,bind / && exec"


def instructions(name):
    """Return the arguments of the instructions of that name, in their order."""
    return re.findall(rf"^{name} +(.*)$", DOCKERFILE, re.MULTILINE)


def copied():
    """Return the sources of the last image that come from the repository."""
    last = DOCKERFILE.rpartition("\nFROM ")[2]
    return [name for line in re.findall(r"^COPY (?!--from)(.*) \S+$", last, re.MULTILINE) for name in line.split()]


def environment_of_image():
    (line,) = instructions("ENV")
    return dict(item.split("=", 1) for item in shlex.split(line) if not item.startswith("PATH="))


class Image(Server):
    """What the image runs, with the files that it has, on a file system that is read-only but for /dev/shm."""

    def __init__(self, folder, **settings):
        self._folder = folder
        for name in copied():
            copy = shutil.copytree if (ROOT / name).is_dir() else shutil.copy
            copy(ROOT / name, folder / name)
        (command,) = re.findall(r"^RUN python -m (compileall .*)$", DOCKERFILE, re.MULTILINE)
        subprocess.run([BIN / "python", "-m", *shlex.split(command)], cwd=folder, check=True)
        super().__init__(**settings)

    def command(self, runner, port):
        (line,) = re.findall(r"^CMD (.*)$", DOCKERFILE, re.MULTILINE)
        inner = shlex.join(["env", "-C", str(self._folder), *json.loads(line)])
        return ["unshare", "-m", "sh", "-c", f"{READ_ONLY} {inner}"], {"PORT": str(port), **environment_of_image()}

    def is_healthy(self, **settings):
        (command,) = re.findall(r"^ *HEALTHCHECK .*? CMD (.*)$", DOCKERFILE, re.MULTILINE)
        return subprocess.run(
            ["sh", "-c", command],
            cwd=self._folder,
            env={**clean_environment(), **environment_of_image(), **settings, "PORT": str(self.port)},
            capture_output=True,
            text=True,
            timeout=20,
            check=False,
        )


def can_be_read_only():
    return (
        shutil.which("unshare") is not None
        and subprocess.run(["unshare", "-m", "sh", "-c", f"{READ_ONLY} true"], capture_output=True).returncode == 0
    )


def test_the_parts_of_the_image():
    """What is copied exists and is not ignored, what is ignored is not copied, and the relay is not root."""
    every = [name for line in instructions("COPY") if not line.startswith("--from") for name in line.split()[:-1]]
    allowed = {line[1:] for line in (ROOT / ".dockerignore").read_text().splitlines() if line.startswith("!")}
    assert set(every) == allowed
    for name in every:
        assert (ROOT / name).exists()
    installed = re.findall(r"-r /src/(\S+)", DOCKERFILE)
    assert installed
    for name in installed:
        assert (ROOT / name).is_file()
    (user,) = instructions("USER")
    assert int(user) > 0
    assert f"--uid {user} " in DOCKERFILE


@pytest.mark.skipif(not can_be_read_only(), reason="a file system is made read-only by root, on Linux")
def test_the_commands_of_the_image(tmp_path):
    """The image's command serves with the image's files and a read-only root, and its health check says so.

    The check finds the first of the keys, and that a relay asks for another.
    """
    with Image(tmp_path, API_KEYS="first,second") as relay:
        files = sorted(tmp_path.rglob("*"))
        assert "Read-only file system" not in relay.log
        result = relay.is_healthy(SOCKET2ME_API_KEYS="first,second")
        assert (result.returncode, result.stderr) == (0, "")
        assert "delete" in result.stdout
        assert relay.is_healthy(SOCKET2ME_API_KEYS="third").returncode == 1
        assert sorted(tmp_path.rglob("*")) == files


def docker_works():
    docker = shutil.which("docker")
    return docker is not None and subprocess.run([docker, "info"], capture_output=True).returncode == 0


@pytest.mark.timeout(600)
@pytest.mark.skipif(not docker_works(), reason="no Docker daemon runs here")
def test_the_image_is_built_and_runs():
    """A container with a read-only root and no capabilities becomes healthy."""
    subprocess.run(
        ["docker", "build", "-q", "-t", "socket2me:test", "."], cwd=ROOT, check=True, capture_output=True
    )
    port = free_port()
    options = ["--read-only", "--cap-drop", "ALL", "--security-opt", "no-new-privileges", "--health-interval", "1s"]
    options += ["-p", f"127.0.0.1:{port}:8000", "-e", "SOCKET2ME_STORE_URL=sqlite:////data/relay.db"]
    name = subprocess.check_output(["docker", "run", "-d", "--rm", *options, "socket2me:test"], text=True).strip()
    try:

        def is_healthy():
            state = ["docker", "inspect", "-f", "{{.State.Health.Status}}", name]
            return subprocess.check_output(state, text=True).strip() == "healthy"

        wait_until(is_healthy, "the container is healthy")
    finally:
        subprocess.run(["docker", "stop", "-t", "15", name], capture_output=True, check=True)


def settings_of_compose():
    """Return the variables of the relay, with the defaults of those that `.env` may have."""
    given = COMPOSE["services"]["relay"]["environment"]
    return {name: re.sub(r"\$\{\w+:-([^}]*)\}", r"\1", str(value)) for name, value in given.items()}


def settings_of_app_json():
    given = json.loads((ROOT / "app.json").read_text())["env"]
    return {name: item.get("value", "generated") for name, item in given.items()}


def settings_of_fly():
    return tomllib.loads((ROOT / "fly.toml").read_text())["env"]


def settings_of_render():
    (web,) = [
        each for each in yaml.safe_load((ROOT / "render.yaml").read_text())["services"] if each["type"] == "web"
    ]
    given = {item["key"]: str(item.get("value", "generated")) for item in web["envVars"]}
    return given | {"REDIS_URL": "redis://red-xyz:6379"}


def settings_of_the_unit():
    found = {}
    for line in re.findall(r"^Environment=(.*)$", UNIT.read_text(), re.MULTILINE):
        found |= dict(item.split("=", 1) for item in line.split())
    return found


@pytest.mark.parametrize(
    "settings",
    [settings_of_compose, settings_of_app_json, settings_of_fly, settings_of_render, settings_of_the_unit],
)
def test_the_settings_of_platforms_are_known_and_accepted(settings):
    """The relay starts with them: an unknown variable, or a value that is not accepted, raises `ConfigError`."""
    assert from_env(settings())


def test_compose():
    """The relay is what the Dockerfile builds, without privileges; what services and volumes it names exist."""
    relay, redis = COMPOSE["services"]["relay"], COMPOSE["services"]["redis"]
    assert relay["build"] == "."
    assert relay["read_only"] is True
    assert relay["cap_drop"] == ["ALL"]
    assert all(port.startswith("127.0.0.1:") for port in relay["ports"])
    assert list(relay["depends_on"]) == ["redis"]
    assert relay["environment"]["SOCKET2ME_STORE_URL"] == "redis://redis:6379/0"
    assert {volume.partition(":")[0] for volume in redis["volumes"]} == set(COMPOSE["volumes"])
    documented = (ROOT / "docs" / "deploy.md").read_text()
    for variable in re.findall(r"\$\{(\w+)", json.dumps(COMPOSE)):
        assert f"`{variable}`" in documented


def test_commands_of_platforms():
    """Each platform runs the command of the `Procfile`, and systemd the same relay of an installed package."""
    command = (ROOT / "Procfile").read_text().strip().removeprefix("web: ")
    (cmd,) = re.findall(r"^CMD (.*)$", DOCKERFILE, re.MULTILINE)
    assert shlex.join(json.loads(cmd)) == command
    assert f"startCommand: {command}\n" in (ROOT / "render.yaml").read_text()
    assert "/socket2me serve\n" in UNIT.read_text()
    assert tomllib.loads((ROOT / "fly.toml").read_text())["build"]["dockerfile"] == "Dockerfile"


@pytest.mark.skipif(shutil.which("systemd-analyze") is None, reason="systemd-analyze is not installed")
def test_the_unit(tmp_path):
    """systemd finds no fault with the unit, and little that it is exposed to."""
    unit = tmp_path / UNIT.name
    unit.write_text(UNIT.read_text().replace("/opt/socket2me/bin/socket2me", str(BIN / "socket2me")))
    environment = {**os.environ, "SYSTEMD_LOG_LEVEL": "notice"}
    verified = subprocess.run(
        ["systemd-analyze", "verify", unit],
        capture_output=True,
        text=True,
        env=environment,
        timeout=30,
        check=False,
    )
    assert UNIT.name not in verified.stderr
    assert verified.returncode == 0, verified.stderr
    exposed = subprocess.run(
        ["systemd-analyze", "security", "--offline=true", f"--threshold={MAX_EXPOSURE}", unit],
        capture_output=True,
        text=True,
        timeout=30,
        check=False,
    )
    assert exposed.returncode == 0, exposed.stdout + exposed.stderr


def test_the_page_names_every_file():
    """`docs/deploy.md` has each of the files."""
    text = (ROOT / "docs" / "deploy.md").read_text()
    for name in ("Dockerfile", ".dockerignore", "compose.yaml", "app.json", "fly.toml", "render.yaml", "Procfile"):
        assert f"`{name}`" in text
        assert (ROOT / name).is_file()
