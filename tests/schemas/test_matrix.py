from typing import Any

import pytest

from indexrelay.schemas.errors import SettingsError
from indexrelay.schemas.settings import Settings
from indexrelay.schemas.settings_file import check_settings

FORECAST = {
    "kind": "vector_index",
    "from": "tracks",
    "matrix": {"horizon": [6, 12, 24, 48], "index": ["Flat", "IVF256,PQ16"]},
    "golden": "queries_{horizon}.json",
}


def settings(**components: dict[str, Any]) -> Settings:
    return check_settings(tables(**components), origin="test")


def tables(**components: dict[str, Any]) -> dict[str, Any]:
    return {
        "collections": {name: {"dimension": 4} for name in ("tracks", "maps_6", "maps_12")},
        "components": components,
    }


def test_a_matrix_makes_one_component_for_each_combination() -> None:
    made = settings(forecast=FORECAST).components
    assert list(made) == [
        f"forecast_{horizon}h_{index}"
        for horizon in (6, 12, 24, 48)
        for index in ("flat", "ivf256_pq16")
    ]
    assert made["forecast_12h_ivf256_pq16"].parameters == {
        "index": "IVF256,PQ16",
        "golden": "queries_12.json",
    }
    assert {each.kind for each in made.values()} == {"vector_index"}
    assert Settings.model_validate(tables(forecast=FORECAST)).components == made


def test_one_matrix_is_made_from_another_and_forms_groups() -> None:
    made = settings(
        base={
            "kind": "vector_index",
            "from": "maps_{horizon}",
            "matrix": {"horizon": [6, 12], "index": ["Flat", "SQ8"]},
            "group": "at_{index}",
        },
        cache={
            "kind": "json_cache",
            "from": ["base_{horizon}h_{index}", "tracks"],
            "function": "a:b",
            "limits": {"most": "{horizon}", "said": "of {horizon} and {other}"},
            "matrix": {"horizon": [6, 12], "index": ["Flat", "SQ8"]},
        },
    ).components
    assert made["base_6h_sq8"].inputs == ("maps_6",)
    assert made["base_6h_sq8"].group == "at_sq8"
    assert made["base_6h_sq8"].parameters == {}  # both are put in somewhere
    assert made["cache_12h_flat"].inputs == ("base_12h_flat", "tracks")
    assert made["cache_12h_flat"].parameters["limits"] == {
        "most": 12,
        "said": "of 12 and {other}",
    }


def test_numbers_texts_and_truth_values_become_words_of_a_name() -> None:
    made = settings(
        x={
            "kind": "vector_index",
            "from": "tracks",
            "matrix": {"quick_first": [True, False], "share": [0.5, -1], "type": ["A b/C-d"]},
        }
    ).components
    assert list(made) == [
        "x_quick_first_0_5s_a_b_c_d",
        "x_quick_first_1s_a_b_c_d",
        "x_no_quick_first_0_5s_a_b_c_d",
        "x_no_quick_first_1s_a_b_c_d",
    ]
    assert made["x_no_quick_first_1s_a_b_c_d"].parameters == {
        "quick_first": False,
        "share": -1,
        "type": "A b/C-d",
    }


@pytest.mark.parametrize(
    ("matrix", "mistake"),
    [
        ([], "components.x.matrix = []: must be a table of lists"),
        ({}, "must be a table of lists"),
        ({"index": "Flat"}, "components.x.matrix.index = 'Flat': must be a list of texts"),
        ({"index": []}, "must be a list of texts, numbers or truth values"),
        ({"index": [["Flat"]]}, "must be a text, a number or a truth value"),
        ({"Index": ["Flat"]}, "an axis is named as components are"),
        ({"index": ["Flat", "flat"]}, "'x_flat': that name is taken, by another combination"),
        ({"index": ["taken"]}, "'x_taken': that name is taken, by another combination or by"),
        ({"index": ["l" * 70]}, "is no name: a name has at most 64"),
        ({"index": ["日本"]}, "has no letter from a to z and no digit"),
        ({"a": list(range(101)), "b": list(range(10))}, "makes more than the 1,000 components"),
    ],
)
def test_a_matrix_that_cannot_be_written_out_is_a_mistake(matrix: Any, mistake: str) -> None:
    x = {"kind": "vector_index", "from": "tracks", "matrix": matrix}
    taken = {"kind": "vector_index", "from": "tracks"}
    with pytest.raises(SettingsError) as raised:
        settings(x_taken=taken, x=x)
    assert mistake in str(raised.value)
    with pytest.raises(ValueError, match=r"components"):
        Settings.model_validate(tables(x_taken=taken, x=x))


def test_a_mistake_in_one_of_them_names_that_one() -> None:
    with pytest.raises(SettingsError, match=r"components\.x_6h\.from.*maps_7"):
        settings(x={"kind": "vector_index", "from": "maps_7", "matrix": {"horizon": [6]}})


def test_schedules_name_them_by_pattern() -> None:
    raw = tables(forecast=FORECAST)
    raw["schedules"] = {"nightly": {"cron": "0 2 * * *", "components": ["forecast_*_flat"]}}
    found = check_settings(raw, origin="test")
    assert found.schedules["nightly"].targets(found.components) == tuple(
        sorted(f"forecast_{horizon}h_flat" for horizon in (6, 12, 24, 48))
    )
