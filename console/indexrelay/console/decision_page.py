"""Why an index is what it is: what was tried, what was taken, and what effort buys.

The figures come from a version's details, as the vector index writes them; what is not there, or
was written by another version of the program, is left out.
"""

from collections.abc import Iterator, Mapping
from typing import Any

from rich.console import RenderableType
from rich.text import Text

from indexrelay.console import figures
from indexrelay.console.sheet import Sheet, flowing, number, whole

DECISION = ("index", "reason", "effort", "trials", "attempts")
"""The details that are shown here, and not among the facts."""
_KNOBS = ("nprobe", "ef_search", "k_factor")
_NONE = "-"
_SHORT = {"recall": "too little recall", "latency": "too slow"}


def decision_page(
    details: Mapping[str, Any], parameters: Mapping[str, Any]
) -> Iterator[RenderableType]:
    """The sentence, what was tried, and the measured trade-off; nothing for other kinds."""
    index, reason = details.get("index"), details.get("reason")
    if not isinstance(index, str):
        return
    asked = parameters.get("index", "auto")
    how = "chosen by auto" if asked == "auto" else f"{asked} was asked for"
    yield Text.assemble(
        ("Index  ", "bold"),
        (index, "bold cyan"),
        f"  ({how}: {reason})" if reason else f"  ({how})",
    )
    attempts = _dicts(details.get("attempts"))
    if len(attempts) > 1:
        yield _attempts(attempts, index)
    trials = _dicts(details.get("trials"))
    if trials:
        yield _trade_off(trials, details.get("effort"))


def _attempts(attempts: list[Mapping[str, Any]], chosen: str) -> Sheet:
    sheet = Sheet(
        "Tried",
        whole(""),
        whole("index"),
        number("recall@10"),
        number("a query"),
        number("built in"),
        flowing("why"),
    )
    for attempt in attempts:
        taken = attempt.get("index") == chosen
        short = [_SHORT.get(str(each), str(each)) for each in attempt.get("short_of") or ()]
        sheet.add(
            Text("✓", style="green") if taken else Text("✗", style="yellow"),
            str(attempt.get("index")),
            _figure(attempt.get("recall")),
            _milliseconds(attempt.get("milliseconds")),
            _seconds(attempt.get("seconds")),
            "; ".join([str(attempt.get("reason", "")), *short]),
        )
    return sheet


def _trade_off(trials: list[Mapping[str, Any]], effort: object) -> Sheet:
    """One row for each effort, from the least; the one that is searched with is marked."""
    knobs = [knob for knob in _KNOBS if any(knob in trial for trial in trials)]
    sheet = Sheet(
        "Trade-off",
        whole(""),
        *(number(knob) for knob in knobs),
        number("recall@10"),
        number("a query"),
    )
    for trial in trials:
        here = {knob: trial[knob] for knob in knobs if knob in trial}
        sheet.add(
            Text("→", style="green") if here == effort else Text(),
            *(figures.value(trial.get(knob, "")) for knob in knobs),
            _figure(trial.get("recall")),
            _milliseconds(trial.get("milliseconds")),
        )
    return sheet


def _dicts(value: object) -> list[Mapping[str, Any]]:
    return [each for each in value if isinstance(each, dict)] if isinstance(value, list) else []


def _figure(value: object) -> str:
    return figures.number(value) if isinstance(value, int | float) else _NONE


def _milliseconds(value: object) -> str:
    return figures.milliseconds(value) if isinstance(value, int | float) else _NONE


def _seconds(value: object) -> str:
    return figures.seconds(value) if isinstance(value, int | float) else _NONE
