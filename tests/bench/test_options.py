"""Names of rows are known without the rows."""

import pytest

from spikevideoformer.bench.options import ROW_NAMES, check_rows
from spikevideoformer.bench.rows import ROWS


def test_names_are_those_of_the_table() -> None:
    assert tuple(ROWS) == ROW_NAMES


def test_refused() -> None:
    check_rows(None)
    check_rows(["attention"])
    with pytest.raises(ValueError, match="got no rows"):
        check_rows([])
    with pytest.raises(ValueError, match=r"'speed' is unknown; choose from cpu_inference_exact"):
        check_rows(["attention", "speed"])
