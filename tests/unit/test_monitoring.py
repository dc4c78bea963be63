"""`examples/grafana.json` and `examples/alerts.yml` use metrics that exist, and each alert can fire."""

import json
import re
import shutil
import subprocess

import pytest
import yaml
from prometheus_client.parser import text_string_to_metric_families

from socket2me_flask import create_app, get_services
from socket2me_flask.errors import StoreUnavailable
from tests.support.servers import ROOT

DASHBOARD = json.loads((ROOT / "examples" / "grafana.json").read_text())
ALERTS = ROOT / "examples" / "alerts.yml"
RULES = [rule for group in yaml.safe_load(ALERTS.read_text())["groups"] for rule in group["rules"]]

ONE = '{job="socket2me", instance="a"}'

# For each alert, series that have a sample each minute, and as many minutes until it fires. `0+0x30` is 30 times 0.
FIRING = {
    "Socket2meDown": (3, {f"up{ONE}": "1 0x30"}),
    "Socket2meStoreDown": (3, {f"up{ONE}": "1x30", f"socket2me_tokens{ONE}": "5 stale"}),
    "Socket2meErrors": (
        10,
        {
            'socket2me_calls_total{instance="a", outcome="forwarded"}': "0+98x40",
            'socket2me_calls_total{instance="a", outcome="error"}': "0+2x40",
        },
    ),
    "Socket2meCallsRefused": (
        30,
        {
            'socket2me_calls_total{instance="a", outcome="forwarded"}': "0+80x40",
            'socket2me_calls_total{instance="a", outcome="no_client"}': "0+20x40",
        },
    ),
    "Socket2meMailboxAge": (8, {f"socket2me_oldest_waiting_event_age_seconds{ONE}": "0 901x30"}),
    "Socket2meDeadLetters": (3, {f"socket2me_dead_lettered_total{ONE}": "0 1x30"}),
    "Socket2meStorageFull": (8, {f"socket2me_mailbox_bytes{ONE}": "0 950000000x30"}),
    "Socket2meStorageDamaged": (1, {f"socket2me_storage_damaged_total{ONE}": "0 1x30"}),
    "Socket2meLimitReached": (3, {'socket2me_limit_reached_total{setting="MAX_HELD_REQUESTS"}': "0 1x30"}),
    "Socket2meDraining": (3, {f"socket2me_draining{ONE}": "0 1x30"}),
}


@pytest.fixture(scope="module")
def scraped(tmp_path_factory):
    """The metrics of a relay, by the names of their samples: the values of each label."""
    store = f"sqlite:///{tmp_path_factory.mktemp('store')}/relay.db"
    http = create_app({"METRICS_KEY": "key", "STORE_URL": store, "HOLD_SECONDS": 0}).test_client()
    http.post(f"/v1/go/{http.get('/v1/new').text}")
    text = http.get("/metrics", headers={"Authorization": "Bearer key"}).text
    found = {}
    for family in text_string_to_metric_families(text):
        suffixes = {"counter": ["_total"], "histogram": ["_bucket", "_sum", "_count"]}.get(family.type, [""])
        for suffix in suffixes:
            labels = found.setdefault(family.name + suffix, {})
            for sample in family.samples:
                for label, value in sample.labels.items():
                    labels.setdefault(label, set()).add(value)
    return found


def expressions():
    """Yield the queries of the dashboard and of the alerts."""
    for panel in DASHBOARD["panels"]:
        for target in panel["targets"]:
            yield target["expr"]
    for variable in DASHBOARD["templating"]["list"]:
        if variable["type"] == "query":
            yield variable["query"]
    for rule in RULES:
        yield rule["expr"]


def test_every_metric_exists(scraped):
    """Each name in a query is that of a metric in a scrape, and so is each outcome of calls."""
    names = {name for expr in expressions() for name in re.findall(r"\b(?:socket2me|process)_\w+", expr)}
    assert len(names) > 15
    assert names <= set(scraped)
    for expr in expressions():
        for listed in re.findall(r'outcome=~?"([^"]+)"', expr):
            assert set(listed.split("|")) <= scraped["socket2me_calls_total"]["outcome"]


def test_the_dashboard_is_whole():
    """Each panel has a place of its own, a query, and the variables that there are."""
    panels = DASHBOARD["panels"]
    assert len({(panel["gridPos"]["x"], panel["gridPos"]["y"]) for panel in panels}) == len(panels)
    assert len({panel["id"] for panel in panels}) == len(panels)
    known = {variable["name"] for variable in DASHBOARD["templating"]["list"]} | {"__rate_interval", "__all"}
    assert set(re.findall(r"\$\{?(\w+)", json.dumps(DASHBOARD))) <= known


needs_promtool = pytest.mark.skipif(shutil.which("promtool") is None, reason="promtool is not installed")


@needs_promtool
def test_promtool_accepts_the_alerts():
    """The rules are such that Prometheus loads them."""
    subprocess.run(["promtool", "check", "rules", ALERTS], check=True, capture_output=True, timeout=30)


@needs_promtool
def test_each_alert_fires(tmp_path):
    """It does with series that should make it, and does not at their beginning."""
    assert set(FIRING) == {rule["alert"] for rule in RULES}
    tests = [
        {
            "interval": "1m",
            "input_series": [{"series": name, "values": values} for name, values in series.items()],
            "promql_expr_test": [
                {
                    "expr": f'count(ALERTS{{alertname="{alert}", alertstate="firing"}})',
                    "eval_time": f"{at}m",
                    "exp_samples": [{"labels": "{}", "value": 1}] if at else [],
                }
                for at in (0, minutes)
            ],
        }
        for alert, (minutes, series) in FIRING.items()
    ]
    file = tmp_path / "alerts_test.yml"
    file.write_text(yaml.safe_dump({"rule_files": [str(ALERTS)], "evaluation_interval": "1m", "tests": tests}))
    result = subprocess.run(["promtool", "test", "rules", file], capture_output=True, text=True, timeout=30)
    assert result.returncode == 0, result.stdout + result.stderr


def test_a_store_that_is_away_hides_no_other_metric(monkeypatch):
    """What it holds is not known, which is no 0; all else is reported."""
    app = create_app({"METRICS_KEY": "key"})

    def fail():
        raise StoreUnavailable

    monkeypatch.setattr(get_services(app).store, "totals", fail)
    answer = app.test_client().get("/metrics", headers={"Authorization": "Bearer key"})
    assert answer.status_code == 200
    samples = {
        family.name: len(family.samples) for family in text_string_to_metric_families(answer.text) if family.samples
    }
    assert not {"socket2me_tokens", "socket2me_mailbox_events", "socket2me_mailbox_bytes"} & samples.keys()
    assert samples["socket2me_draining"] == 1
