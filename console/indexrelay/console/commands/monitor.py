"""``indexrelay monitor``: how the installation is, for people and for a monitoring system.

It looks by itself, and says what the port of the operator would: the same metrics, the same rules.
A rule waits before it fires; one look cannot wait, so that everything that holds now is shown.
"""

from collections.abc import Iterator
from contextlib import contextmanager
from typing import TYPE_CHECKING, Annotated, Any, Final

import typer
from rich.console import Group, RenderableType
from rich.text import Text

from indexrelay.console import figures
from indexrelay.console.commands import Config, Json, alone
from indexrelay.console.errors import ExitCode
from indexrelay.console.installation import Installation
from indexrelay.console.sheet import Sheet, flowing, spare, whole
from indexrelay.console.terminal import ANSWERS, advice_line, print_json, stdout, visible
from indexrelay.console.watch import Watch, show_again
from indexrelay.schemas.clock import SystemClock

if TYPE_CHECKING:
    from indexrelay.operations.monitor import Look, Looker

app = typer.Typer(add_completion=False)
_STYLES: Final = {"healthy": "green", "warning": "yellow", "critical": "red", "well": "green"}
_MARKS: Final = {"healthy": "✓", "warning": "⚠", "critical": "✗"}


@app.callback(invoke_without_command=True)
def monitor(context: typer.Context, config: Config = None, json: Json = False) -> None:
    """How the installation is; the same as ``health``."""
    if alone(context, config=config, json=json):
        health(config=config, json=json)


@app.command()
def health(
    config: Config = None,
    json: Json = False,
    watch: Watch = False,
) -> None:
    """The status, and each alert that holds, with what to do; exits 3 unless it is healthy."""
    from indexrelay.operations.monitor import health_document

    with _looking(config) as looker:

        def looked() -> dict[str, Any]:
            return health_document(looker.look(), component="indexrelay", pending=True)

        if watch:
            show_again(lambda: _health_page(looked()), json=json)
        document = looked()
    if json:
        print_json(document)
    else:
        stdout().print(_health_page(document))
    healthy = document["status"] == "healthy"
    raise typer.Exit(ExitCode.SUCCESS if healthy else ExitCode.PARTIAL)


@app.command()
def metrics(config: Config = None, json: Json = False) -> None:
    """Every metric of the installation, as a monitoring system reads it."""
    from indexrelay.operations.metrics import METRICS, page_of, samples_of

    with _looking(config) as looker:
        seen = looker.look().seen
    if json:
        found = [
            {
                "name": each.name,
                "kind": METRICS[each.name].kind,
                "labels": dict(each.labels),
                "value": each.value,
            }
            for each in samples_of(seen)
        ]
        print_json({"timestamp": seen.at.isoformat(), "metrics": found})
    else:
        ANSWERS.stream.write(page_of(seen).decode())


@app.command()
def alerts(
    config: Config = None,
    json: Json = False,
    prometheus: Annotated[
        bool,
        typer.Option("--prometheus", help="The rules as a file of Prometheus; looks at nothing."),
    ] = False,
    watch: Watch = False,
) -> None:
    """Each rule, and whether it holds now."""
    from indexrelay.operations.alerts import prometheus_rules

    if prometheus and (json or watch):
        raise typer.BadParameter("--prometheus writes YAML: leave out --json and --watch")
    if prometheus:
        with Installation.at(config) as installation:
            settings = installation.settings
            every = settings.monitoring.look_seconds
            ANSWERS.stream.write(prometheus_rules(settings.alerts, look_seconds=every))
        return
    with _looking(config) as looker:
        if watch:
            show_again(lambda: _alerts_table([*_rule_rows(looker, looker.look())]), json=json)
        look = looker.look()
        rows = list(_rule_rows(looker, look))
    if json:
        print_json({"timestamp": look.seen.at.isoformat(), "alerts": rows})
    else:
        stdout().print(_alerts_table(rows))


@app.command()
def dashboard(config: Config = None) -> None:
    """The dashboard for Grafana, as JSON to be imported there."""
    from indexrelay.operations.dashboard import dashboard as model

    with Installation.at(config) as installation:
        ANSWERS.stream.write(model(installation.settings.namespace))


@contextmanager
def _looking(config: Any) -> "Iterator[Looker]":
    from indexrelay.operations.monitor import Looker

    with Installation.at(config) as installation:
        yield Looker(
            installation.settings,
            catalog=installation.catalog,
            store=installation.store,
            connection=lambda: installation.connection,
            clock=SystemClock(),
        )


def _health_page(document: dict[str, Any]) -> RenderableType:
    status = document["status"]
    lines = []
    for alert in document["active_alerts"]:
        mark = _MARKS[alert["severity"]]
        text = f"{mark} {alert['name']}: {visible(alert['summary'])}"
        lines += [Text(text, style=_STYLES[alert["severity"]]), advice_line(alert["advice"])]
    counts = ", ".join(
        f"{count} {name}" for name, count in document["alert_counts"].items() if count
    )
    last = f"{_MARKS[status]} {status}" + (f": {counts}" if counts else "")
    return Group(*lines, Text(last, style=_STYLES[status]))


def _rule_rows(looker: "Looker", look: "Look") -> Iterator[dict[str, Any]]:
    for rule in looker.rules:
        holding = [each for each in look.evaluation.active if each.rule is rule]
        yield {
            "name": rule.name,
            "severity": str(rule.severity),
            "for_seconds": rule.for_seconds,
            "expression": rule.expression,
            "holds": [
                {"labels": dict(each.labels), "value": each.value, "summary": each.summary}
                for each in holding
            ],
            "advice": rule.advice,
        }


def _alerts_table(rows: list[dict[str, Any]]) -> Sheet:
    sheet = Sheet(
        "Alerts", whole("alert"), whole("severity"), whole("after"), flowing("now"), spare("rule")
    )
    for row in rows:
        now = "; ".join(each["summary"] for each in row["holds"]) or "well"
        sheet.add(
            row["name"],
            row["severity"],
            figures.seconds(row["for_seconds"]),
            Text(visible(now), style=_STYLES["well" if not row["holds"] else row["severity"]]),
            row["expression"],
        )
    return sheet
