"""How `status` shows that a better version is to follow."""

import io

import pytest
from rich.console import Console

from indexrelay.console.commands.status import components_table
from indexrelay.health.status import ComponentHealth, Condition, ImprovementHealth


@pytest.mark.parametrize(
    ("building", "shown"),
    [(("r1",), "current, improving"), ((), "current, to be improved")],
)
def test_an_improvement_stands_beside_the_state_of_its_component(
    building: tuple[str, ...], shown: str
) -> None:
    health = ComponentHealth(
        kind="vector_index",
        condition=Condition.CURRENT,
        improvement=ImprovementHealth(reason="lists were ready soonest", building=building),
    )
    page = Console(width=200, file=io.StringIO(), record=True)
    page.print(components_table({"similar": health}))
    assert shown in page.export_text()
