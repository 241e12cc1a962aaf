"""The dashboard for Grafana: what an operator looks at first, from the metrics that there are.

Made with grafana-foundation-sdk, which knows the format of Grafana's JSON model. Import it there,
or put the file where Grafana is provisioned from; which Prometheus it asks is a variable.
"""

import json
import re
from dataclasses import dataclass
from typing import Any, Final, Literal, TypeAlias

from indexrelay.operations.metrics import METRICS
from indexrelay.schemas.errors import require

Unit: TypeAlias = Literal["s", "bytes", "percentunit", "short", "reqps", "dateTimeFromNow"]
"""As Grafana calls them."""
_HALF: Final = 12
"""Of the 24 columns of a dashboard."""
_HEIGHT: Final = 8
_OURS: Final = "max without (instance, job)"
"""Every process says the same of the installation."""
_EACH_HOST: Final = "min without (job)"
"""A volume is one host's."""


@dataclass(frozen=True, kw_only=True)
class Query:
    """One line of a panel, and its legend with labels in double braces."""

    promql: str
    legend: str


@dataclass(frozen=True, kw_only=True)
class Panel:
    """One graph."""

    title: str
    unit: Unit
    description: str
    queries: tuple[Query, ...]


def _of_components(metric: str) -> Query:
    return Query(promql=f"{_OURS} ({metric})", legend="{{component}}")


ROWS: Final[tuple[tuple[str, tuple[Panel, ...]], ...]] = (
    (
        "Is all well?",
        (
            Panel(
                title="Problems",
                unit="short",
                description="What the judge finds, but for what ends by itself.",
                queries=(
                    Query(
                        promql=f'{_OURS} (indexrelay_verdict_problems{{severity!="info"}})',
                        legend="{{severity}}: {{code}}",
                    ),
                ),
            ),
            Panel(
                title="Freshness",
                unit="s",
                description="The age of the oldest commit that some reader does not serve.",
                queries=(_of_components("indexrelay_freshness_seconds"),),
            ),
        ),
    ),
    (
        "Rebuilds",
        (
            Panel(
                title="Rebuilds per minute",
                unit="short",
                description="By how they ended, and what they came from.",
                queries=(
                    Query(
                        promql=f"{_OURS} (60 * rate(indexrelay_rebuild_total[5m]))",
                        legend="{{status}} by {{trigger}}",
                    ),
                ),
            ),
            Panel(
                title="Duration of rebuilds",
                unit="s",
                description="Half of them, and all but one in twenty, took no longer.",
                queries=tuple(
                    Query(
                        promql=f"histogram_quantile({share}, {_OURS} "
                        "(rate(indexrelay_rebuild_duration_seconds_bucket[1h])))",
                        legend=f"{share:.0%} {{{{status}}}}",
                    )
                    for share in (0.5, 0.95)
                ),
            ),
            Panel(
                title="Success of the last 24 hours",
                unit="percentunit",
                description="The share of the rebuilds that succeeded whole.",
                queries=(
                    Query(promql=f"{_OURS} (indexrelay_rebuild_success_ratio)", legend="succeeded"),
                ),
            ),
            Panel(
                title="Memory of builds",
                unit="bytes",
                description="The most that the process of the last build had.",
                queries=(_of_components("indexrelay_build_peak_memory_bytes"),),
            ),
            Panel(
                title="Failed builds in a row",
                unit="short",
                description="At 3 a component is not tried again by itself.",
                queries=(_of_components("indexrelay_rebuild_consecutive_failures"),),
            ),
        ),
    ),
    (
        "Indexes",
        (
            Panel(
                title="Recall at 10",
                unit="percentunit",
                description="As the gate measured it when the version was built.",
                queries=(_of_components("indexrelay_index_recall"),),
            ),
            Panel(
                title="Entries",
                unit="short",
                description="Of what is released.",
                queries=(_of_components("indexrelay_index_entries"),),
            ),
            Panel(
                title="Size",
                unit="bytes",
                description="Of the files of what is released.",
                queries=(_of_components("indexrelay_index_bytes"),),
            ),
            Panel(
                title="Tombstones",
                unit="percentunit",
                description="The share of a base that is deleted or replaced.",
                queries=(_of_components("indexrelay_index_tombstone_ratio"),),
            ),
        ),
    ),
    (
        "Readers",
        (
            Panel(
                title="Readers by state",
                unit="short",
                description="Those that are present.",
                queries=(Query(promql=f"{_OURS} (indexrelay_readers)", legend="{{state}}"),),
            ),
            Panel(
                title="Queries per second",
                unit="reqps",
                description="Over HTTP, by how they ended.",
                queries=(
                    Query(
                        promql="sum by (outcome) (rate(indexrelay_queries_total[5m]))",
                        legend="{{outcome}}",
                    ),
                ),
            ),
            Panel(
                title="Latency of searches",
                unit="s",
                description="All but one in a hundred took no longer, by component.",
                queries=(
                    Query(
                        promql="histogram_quantile(0.99, sum by (component, le) "
                        "(rate(indexrelay_index_search_latency_seconds_bucket[5m])))",
                        legend="{{component}}",
                    ),
                ),
            ),
            Panel(
                title="Memory of readers",
                unit="bytes",
                description="Their own, and mapped pages, which the readers of a host share.",
                queries=(Query(promql="indexrelay_resident_bytes", legend="{{instance}} {{of}}"),),
            ),
        ),
    ),
    (
        "Places",
        (
            Panel(
                title="Free disk",
                unit="percentunit",
                description="The share of the volume.",
                queries=(
                    Query(
                        promql=f"{_EACH_HOST} (indexrelay_disk_free_ratio)",
                        legend="{{place}} {{instance}}",
                    ),
                ),
            ),
            Panel(
                title="Events that wait",
                unit="short",
                description="Of the stream, and those that could not be read.",
                queries=(
                    Query(promql=f"{_OURS} (indexrelay_events_backlog)", legend="backlog"),
                    Query(promql=f"{_OURS} (indexrelay_dead_letters)", legend="dead letters"),
                ),
            ),
        ),
    ),
)
"""Each row's title, and its panels, two beside each other."""


def dashboard(namespace: str) -> str:
    """The JSON model of the dashboard.

    Args:
        namespace: whose it is: other installations of the same Prometheus are left out.

    Raises:
        MissingExtraError: grafana-foundation-sdk is not installed.
    """
    sdk = _Sdk()
    board = (
        sdk.dashboard.Dashboard(f"indexrelay: {namespace}")
        .uid(f"indexrelay-{namespace}"[:40])
        .tags(["indexrelay"])
        .refresh("30s")
        .time("now-6h", "now")
        .timezone("browser")
        .with_variable(
            sdk.dashboard.DatasourceVariable("source").label("Source").type("prometheus")
        )
    )
    for title, panels in ROWS:
        board = board.with_row(sdk.dashboard.Row(title))
        for panel in panels:
            board = board.with_panel(sdk.panel(panel, namespace))
    model = json.loads(sdk.encoder.JSONEncoder(sort_keys=True).encode(board.build()))
    return json.dumps(model, indent=2) + "\n"


_NAME: Final = re.compile(r"(?P<name>indexrelay_\w+)(?P<opened>\{)?")


def _within(promql: str, namespace: str) -> str:
    """The same of one installation; a reader's own metrics have no such label."""

    def selected(found: re.Match[str]) -> str:
        if found["name"].removesuffix("_bucket") not in METRICS:
            return found[0]
        matcher = f"namespace={json.dumps(namespace)}"
        return f"{found['name']}{{{matcher}" + (", " if found["opened"] else "}")

    return _NAME.sub(selected, promql)


class _Sdk:
    """The parts of the library that are used."""

    def __init__(self) -> None:
        self.dashboard: Any = require("grafana_foundation_sdk.builders.dashboard")
        self._timeseries: Any = require("grafana_foundation_sdk.builders.timeseries")
        self._prometheus: Any = require("grafana_foundation_sdk.builders.prometheus")
        self._models: Any = require("grafana_foundation_sdk.models.dashboard")
        self.encoder: Any = require("grafana_foundation_sdk.cog.encoder")

    def panel(self, panel: Panel, namespace: str) -> Any:
        source = self._models.DataSourceRef(type_val="prometheus", uid="${source}")
        built = (
            self._timeseries.Panel()
            .title(panel.title)
            .description(panel.description)
            .unit(panel.unit)
            .min(0)
            .datasource(source)
            .span(_HALF)
            .height(_HEIGHT)
        )
        for name, query in zip("ABCD", panel.queries, strict=False):
            promql = _within(query.promql, namespace)
            target = self._prometheus.Dataquery().expr(promql).legend_format(query.legend)
            built = built.with_target(target.ref_id(name).datasource(source))
        return built
