"""Payloads in a mapped file: parsed when they are asked for."""

from pathlib import Path

import numpy as np
import pytest

from indexrelay.components.errors import CorruptFileError
from indexrelay.components.formats.entry_tables import PayloadTable
from tests.components.formats.tables import write


def test_payloads_are_parsed_and_may_be_missing(tmp_path: Path) -> None:
    table = PayloadTable(write(tmp_path / "p", ['{"a": [1, null]}', None, '"x"', "null"]))
    assert table.many(np.array([2, 0, 1, 3])) == ["x", {"a": [1, None]}, None, None]
    assert table.text_many(np.arange(4)) == ['{"a": [1, null]}', None, '"x"', "null"]


def test_a_payload_that_is_not_json_is_corruption(tmp_path: Path) -> None:
    table = PayloadTable(write(tmp_path / "p", ["{"]))
    with pytest.raises(CorruptFileError, match="not JSON"):
        table.many(np.array([0]))
