"""What reranking is for, in one question: `make demo`. Offline, on two cores, in seconds.

2,587 passages of the World Factbook are ranked twice: by words alone, and by the model that lives in this package. No
first stage picks candidates here: one that goes by words would have lost the answer.
"""

from __future__ import annotations

import gzip
import json
import re
import time
from collections.abc import Sequence
from pathlib import Path

from onnx_rerank_integrations import RankedDocument, TextCrossEncoder

PASSAGES = Path(__file__).parent / "notebooks" / "data" / "factbook" / "corpus.jsonl.gz"
QUESTION = "Where do vessels get stuck when it freezes?"
SHOWN = 3
MAX_LENGTH = 64
"""Tokens: enough for most of these passages, and for the beginning of the others."""


def main() -> None:
    started = time.perf_counter()
    with gzip.open(PASSAGES, "rt", encoding="utf-8") as lines:
        passages = [json.loads(line) for line in lines]
    texts = [f"{passage['title']}. {passage['text']}" for passage in passages]
    by_words = TextCrossEncoder("lexical").rank(QUESTION, texts)
    embedded = TextCrossEncoder("embedded", max_length=MAX_LENGTH, warn_truncated=False)
    by_meaning = embedded.rank(QUESTION, texts, top_n=SHOWN)
    place = [ranked.index for ranked in by_words].index(by_meaning[0].index) + 1

    def show(ranked: Sequence[RankedDocument]) -> None:
        for position, one in enumerate(ranked, start=1):
            passage = passages[one.index]
            print(f"  {position}. {passage['title']}\n     {best_sentence(embedded, passage['text'])}")

    print(f"{len(texts):,} passages about countries. {QUESTION}\n\nBy meaning (model='embedded'):")
    show(by_meaning)
    print("\nBy words alone (model='lexical'):")
    show(by_words[:SHOWN])
    print(f"\nBy words the answer is number {place:,}. {time.perf_counter() - started:.1f} s for both, offline.")


def best_sentence(encoder: TextCrossEncoder, text: str) -> str:
    """The sentence that answers best, as the same model sees it."""
    return encoder.rank(QUESTION, re.split(r"(?<=[.;])\s+", text), top_n=1)[0].text


if __name__ == "__main__":
    main()
