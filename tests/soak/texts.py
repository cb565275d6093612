"""Texts of every kind through the core, both doors and the command: `tests.properties`, on many more of them."""

from __future__ import annotations

import time
from collections.abc import Callable
from functools import partial

from hypothesis import HealthCheck, Phase, given, seed, settings

from onnx_rerank_integrations import TextCrossEncoder
from tests import properties
from tests.parity import fixtures
from tests.properties import Example, examples
from tests.soak import WHOLE

MORE = 150
"""Texts of an example beside those that are drawn."""

ROUND = 10
"""Examples between two looks at the clock."""

LONG = 300_000
"""Texts of the long form, however long they take."""

SHARES = {"core, lexical": 8, "core, bert": 4, "core, xlm-roberta": 2, "langchain": 1, "llama-index": 1, "command": 1}
"""Rounds of each way in a turn: the quickest way tries the most."""


def run(seconds: float, seed_: int) -> dict[str, int]:
    lexical = TextCrossEncoder("lexical")
    ways: dict[str, Callable[[Example], int]] = {
        "core, lexical": partial(properties.check_core, lexical),
        "core, bert": partial(properties.check_core, TextCrossEncoder(fixtures.folder("bert"))),
        "core, xlm-roberta": partial(properties.check_core, TextCrossEncoder(fixtures.folder("xlm-roberta"))),
        "langchain": properties.langchain_door(lexical),
        "llama-index": properties.llama_index_door(lexical),
        "command": properties.command(lexical),
    }
    counts = dict.fromkeys((f"texts through {way}" for way in ways), 0)
    calls = turn = 0
    end, least = time.monotonic() + seconds, LONG if seconds >= WHOLE else 1
    while sum(counts.values()) < least or time.monotonic() < end:
        for way, check in ways.items():
            for part in range(SHARES[way]):
                tried = _tried(check, seed_ + 1000 * turn + part)
                counts[f"texts through {way}"] += sum(tried)
                calls += len(tried)
                if turn and time.monotonic() > end:
                    break
        turn += 1
    return {"texts": sum(counts.values()), "examples": calls, **counts}


def _tried(check: Callable[[Example], int], number: int) -> list[int]:
    """How many texts each example of one round had."""
    tried: list[int] = []

    @seed(number)
    @settings(
        max_examples=ROUND,
        deadline=None,
        database=None,
        phases=[Phase.generate],
        suppress_health_check=list(HealthCheck),
    )
    @given(examples(more=MORE))
    def once(example: Example) -> None:
        tried.append(check(example))

    once()
    return tried
