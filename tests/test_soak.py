"""The least work of each part of the long form (`make soak`), with a seed of its own: `.ci/run faults` does more."""

from __future__ import annotations

import pytest

from tests.soak.__main__ import PARTS, run_parts


@pytest.mark.soak
@pytest.mark.parametrize("part", PARTS)
def test_the_least_of_each_part_of_the_soak_holds(part: str, capsys: pytest.CaptureFixture[str]) -> None:
    counts = run_parts([part], seconds=0, seed=7)

    assert part in counts, capsys.readouterr().out
    assert sum(counts[part].values()) > 50
