"""How the least effort is found."""

from hypothesis import given
from hypothesis import strategies as st

from indexrelay.components.vector_index.tuner import least


@given(most=st.integers(1, 5000), answer=st.integers(1, 6000))
def test_the_least_sufficient_value_is_found_within_an_eighth(most: int, answer: int) -> None:
    asked: list[int] = []

    def enough(value: int) -> bool:
        asked.append(value)
        return value >= answer

    found = least(most, enough)
    if answer > most:
        assert found is None
    else:
        assert found is not None
        assert answer <= found <= min(most, answer + answer // 8)
    assert len(asked) <= 2 + 2 * 13
