"""The seven cases with each CI product: what is seen is what docs/ci-cases.md says."""

from __future__ import annotations

import json
import os
from pathlib import Path

import pytest
import table
from cases import CASES, IsSlow, play
from products import PRODUCTS
from farm import Farm

RESTART = 20.0
"""Longest time in seconds from the damage to the second attempt, on a busy machine."""


@pytest.mark.parametrize("case", CASES.values(), ids=CASES.keys())
@pytest.mark.parametrize("product", PRODUCTS.values(), ids=PRODUCTS.keys())
def test_case(product, case, farm: Farm) -> None:
    """Plays one case with one product."""
    seen, log = play(product, case, farm)
    if folder := os.environ.get("WHARFINGER_ROWS"):
        name = next(name for name, one in CASES.items() if one is case)
        path = Path(folder) / f"{product.name} {name}.json"
        path.write_text(json.dumps({"product": product.name, "case": name, "seen": seen.document()}))
    else:
        assert seen.row() == table.expected(product.name, case.title), log
    assert seen.left == 0, log
    if seen.restart is not None:
        assert seen.restart < (product.slowest if isinstance(product, IsSlow) else RESTART), log
