import dataclasses
import re

import limits
import pytest

from socket2me_flask.config import (
    LIMITS,
    PLATFORM_VARIABLES,
    SETTINGS,
    Settings,
    exposure_warning,
    from_env,
    variable_of,
)
from socket2me_flask.errors import ConfigError
from tests.support.servers import ROOT

GOOD = {
    "PORT": ("9000", 9000),
    "BIND": ("::", "::"),
    "HOLD_SECONDS": ("0.5", 0.5),
    "TOKEN_EXPIRE_SECONDS": (" 60 ", 60),
    "MAX_BODY_BYTES": ("0", 0),
    "API_KEYS": ("one, two,", ("one", "two")),
    "REQUIRE_SECRET": ("True", True),
    "LOG_LEVEL": ("warning", "WARNING"),
    "STORE_URL": ("rediss://:x@redis.example:6380/1", "rediss://:x@redis.example:6380/1"),
    "RATE_LIMIT_NEW": ("0", None),
    "RATE_LIMIT_REQUESTS": ("10 per 5 minutes", limits.parse("10/5 minutes")),
    "CORS_ALLOWED_ORIGINS": ("https://a.example, http://b:8080", ("https://a.example", "http://b:8080")),
    "PUBLIC_URL": ("https://relay.example:8443/", "https://relay.example:8443"),
    "ENCRYPTION_KEY": (f"{'A' * 43}=, {'/' * 42}8=", (bytes(32), b"\xff" * 32)),
    "SNS": ("true", True),
    "BANNED_NAMES": ("PayPal, acme-dev,", ("paypal", "acme-dev")),
}
BAD = {
    "PORT": ["x", "0", "65536", "80.5"],
    "BIND": ["everywhere", "0.0.0.0:80", "256.1.1.1"],
    "MAX_CONNECTIONS": ["-1", "9999999", "1e3"],
    "RATE_LIMIT_NEW": ["60", "60/fortnight", "-1/minute", "x", "0/minute", "5/0 minutes", "60/minute;1000/hour"],
    "REQUIRE_SECRET": ["maybe"],
    "LOG_LEVEL": ["loud"],
    "TRUSTED_PROXY_HOPS": ["-1", "x"],
    "PING_INTERVAL_SECONDS": ["0", "3601"],
    "HOLD_SECONDS": ["-1", "nan", "inf", "2s"],
    "TOKEN_EXPIRE_SECONDS": ["0", "1e30"],
    "MAX_BODY_BYTES": ["-1", "2MB", "3000000000"],
    "PUBLIC_URL": [
        "relay.example",
        "ftp://relay.example",
        "https://relay.example/a",
        "https://u@relay.example",
        "https://",
    ],
    "BANNED_NAMES": ["pay pal", "pay_pal", "a;b"],
    "CORS_ALLOWED_ORIGINS": ["example.com", "https://a.example/path", "ftp://a.example"],
}


def read(settings):
    """Return the settings of an environment; `settings` are texts by the settings' names in capitals."""
    return from_env({variable_of(name.lower()): text for name, text in settings.items()})


def test_an_empty_environment_gives_the_defaults():
    """Nothing has to be set."""
    settings = from_env({})
    assert 0 < settings.max_connections <= 20_000  # follows the files that this process may open
    assert settings.max_connections_per_address == min(1000, settings.max_connections // 2)
    for name in {*SETTINGS, *LIMITS} - {"max_connections", "max_connections_per_address"}:
        assert getattr(settings, name) == getattr(Settings(), name)
    assert from_env({variable_of(name): "" for name in SETTINGS}) == settings


@pytest.mark.parametrize("name", GOOD)
def test_a_variable_sets_its_setting(name):
    """A variable becomes a value of the setting's type."""
    text, value = GOOD[name]
    assert getattr(read({name: text}), name.lower()) == value


@pytest.mark.parametrize("text", ["x", "A" * 44, "hunter2A", ","])
def test_a_key_that_encrypts_nothing_is_refused_and_not_shown(text):
    """The error names the variable and what it takes, and not what it holds."""
    with pytest.raises(ConfigError) as caught:
        read({"ENCRYPTION_KEY": text})
    assert str(caught.value).startswith("SOCKET2ME_ENCRYPTION_KEY is not accepted: it takes 32 bytes in base64")
    assert "hunter2" not in str(caught.value)


def test_settings_cannot_be_changed():
    """Tests and programs that import the names can rely on them."""
    with pytest.raises(dataclasses.FrozenInstanceError):
        from_env({}).port = 1


@pytest.mark.parametrize(
    ("variable", "nearest"),
    [
        ("SOCKET2ME_HOLD_SECOND", "SOCKET2ME_HOLD_SECONDS"),
        ("SOCKET2ME_STORE", "SOCKET2ME_STORE_URL"),
    ],
)
def test_an_unknown_variable_stops_the_start_with_the_nearest_name(variable, nearest):
    """A slip of the keyboard would otherwise go unseen."""
    with pytest.raises(ConfigError, match=f"^{variable} is not a setting. The nearest is {nearest}; "):
        from_env({variable: "1"})


def test_the_variables_of_the_command_are_known():
    """They may be set where a relay is started."""
    from_env({"SOCKET2ME_SERVER": "x", "SOCKET2ME_API_KEY": "x", "SOCKET2ME_PROFILE": "x", "SOCKET2ME_DEBUG": "1"})


def test_limits_are_set_by_one_variable():
    """It takes several, and names what it does not take."""
    settings = from_env({"SOCKET2ME_LIMITS": "WINDOW=5 KEEPALIVE_SECONDS=2 REDIS_TLS_VERIFY=false"})
    assert (settings.window, settings.keepalive_seconds, settings.redis_tls_verify) == (5, 2, False)
    with pytest.raises(ConfigError, match="^SOCKET2ME_LIMITS names 'PORT', which is none of "):
        from_env({"SOCKET2ME_LIMITS": "PORT=1"})
    with pytest.raises(ConfigError, match="^SOCKET2ME_LIMITS: WINDOW='0' is not accepted: "):
        from_env({"SOCKET2ME_LIMITS": "WINDOW=0"})
    with pytest.raises(
        ConfigError, match="^SOCKET2ME_WINDOW is not a setting. It is a limit: SOCKET2ME_LIMITS=WINDOW="
    ):
        from_env({"SOCKET2ME_WINDOW": "5"})


def test_mailboxes_need_a_store_that_survives_the_process():
    """What is kept in memory is lost with it, so no token has a mailbox there, nor by default."""
    with pytest.raises(
        ConfigError, match="^SOCKET2ME_MAILBOX_DEFAULT=true needs a SOCKET2ME_STORE_URL that survives"
    ):
        read({"MAILBOX_DEFAULT": "true"})
    assert read({"MAILBOX_DEFAULT": "true", "STORE_URL": "sqlite:///relay.db"}).mailbox_default


def test_an_override_that_is_none_is_refused():
    """With the nearest name."""
    with pytest.raises(ConfigError, match=r"^HOLD is not a setting. The nearest is HOLD_SECONDS\.$"):
        from_env({}, {"HOLD": 1})


@pytest.mark.parametrize(("name", "text"), [(name, text) for name, texts in BAD.items() for text in texts])
def test_a_bad_value_is_one_line_that_names_the_variable(name, text):
    """The error says which variable, what it holds and what it takes, on one line."""
    with pytest.raises(ConfigError) as caught:
        read({name: text})
    message = str(caught.value)
    assert re.match(rf"{variable_of(name.lower())}='?{re.escape(text)}'? is not accepted: .+", message)
    assert "\n" not in message


@pytest.mark.parametrize(
    ("name", "text"),
    [
        ("SOCKET2ME_API_KEYS", ","),
        ("SOCKET2ME_METRICS_KEY", "geheim geheim"),
        ("SOCKET2ME_METRICS_KEY", "gehéim"),
        ("SOCKET2ME_STORE_URL", "file:relay.db"),
        ("SOCKET2ME_STORE_URL", "sqlite://host/file"),
        ("SOCKET2ME_STORE_URL", "redis://:geheim@host/0?ssl_cert_reqs=none"),
        ("SOCKET2ME_STORE_URL", "redis://:geheim@host:x/0"),
        ("REDIS_URL", "redis://:ge/heim@host/0"),
        ("REDIS_URL", "http://:geheim@host"),
    ],
)
def test_a_bad_value_that_may_be_secret_is_not_shown(name, text):
    """A password may be in it. The variable is named that it came from."""
    with pytest.raises(ConfigError, match=f"^{name} is not accepted: ") as caught:
        from_env({name: text})
    assert text not in str(caught.value)
    assert "heim" not in str(caught.value)


def test_redis_url_counts_where_store_url_is_not_set():
    """As Heroku sets it."""
    assert from_env({"REDIS_URL": "redis://h"}).store_url == "redis://h"
    assert from_env({"REDIS_URL": "redis://h", "SOCKET2ME_STORE_URL": "memory://"}).store_url == "memory://"


def test_every_setting_is_documented():
    """docs/settings.md has a row for each setting, with its default and its sentence."""
    page = (ROOT / "docs" / "settings.md").read_text()
    for name, setting in SETTINGS.items():
        assert f"| `{variable_of(name)}` | {shown(setting.default)} | {setting.metadata['meaning']} |\n" in page
    for name, limit in LIMITS.items():
        assert f"| `{name.upper()}` | {shown(limit.default)} | {limit.metadata['meaning']} |\n" in page


def shown(default):
    """Return a default as the page shows it."""
    if default is None or default == ():
        return ""
    if isinstance(default, bool):
        return f"`{default}`".lower()
    if isinstance(default, float):
        return f"`{default:.10g}`"
    if isinstance(default, limits.RateLimitItem):
        return f"`{default.amount}/{default.GRANULARITY.name}`"
    return f"`{default}`"


@pytest.mark.parametrize(
    ("environ", "address"),
    [
        ({}, "127.0.0.1:8000"),
        ({"PORT": "8001"}, "127.0.0.1:8001"),
        ({"PORT": "8001", "SOCKET2ME_BIND": "0.0.0.0"}, "0.0.0.0:8001"),  # noqa: S104
        ({"SOCKET2ME_BIND": "::1"}, "[::1]:8000"),
        *(({name: "x", "PORT": "80"}, "0.0.0.0:80") for name in PLATFORM_VARIABLES),
        ({"DYNO": ""}, "127.0.0.1:8000"),
        ({"DYNO": "web.1", "SOCKET2ME_BIND": "localhost"}, "localhost:8000"),
    ],
)
def test_the_relay_listens_on_this_machine_unless_told_otherwise(environ, address):
    """By BIND, or by a platform's variable; a port alone exposes nothing."""
    assert from_env(environ).bind_address == address


def test_what_it_means_to_be_reached_by_others():
    """The warning names each setting that is missing; there is none where only this machine reaches the relay."""
    open_to_all = exposure_warning("0.0.0.0:8000", from_env({}))
    assert "0.0.0.0:8000" in open_to_all
    assert "API_KEYS" in open_to_all
    assert "REQUIRE_SECRET" in open_to_all
    keyed = exposure_warning("[::]:8000", read({"API_KEYS": "k"}))
    assert "API_KEYS" not in keyed
    assert "REQUIRE_SECRET" in keyed
    assert exposure_warning("relay.example:80", from_env({})) is not None
    assert exposure_warning("0.0.0.0:8000", read({"API_KEYS": "k", "REQUIRE_SECRET": "1"})) is None
    for address in (
        "127.0.0.1:8000",
        "127.9.9.9:1",
        "[::1]:8000",
        "localhost:8000",
        "unix:/run/relay.sock",
        "fd://3",
    ):
        assert exposure_warning(address, from_env({})) is None
