"""What may be asked of ``svf theory``. Nothing here needs torch."""

import os
from collections.abc import Sequence


def check_options(
    seed: int, model: str | os.PathLike[str] | None, inputs: Sequence[str | os.PathLike[str]]
) -> None:
    """Raise ValueError for a seed out of range, a model without videos or the reverse."""
    if not 0 <= seed < 2**63:
        raise ValueError(f"seed is {seed}; give a whole number from 0 to 2^63 - 1")
    if model is not None and not inputs:
        raise ValueError("a model was given but no video; give at least one: --model FOLDER VIDEO")
    if model is None and inputs:
        raise ValueError(f"got {inputs[0]} but no model; give one: --model FOLDER {inputs[0]}")
