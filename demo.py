"""What reranking is for, in one question: `make demo`. Offline, on two cores, in seconds.

2,587 passages of the World Factbook are ranked twice: by words alone, and by the model that lives in this package.
"""

from __future__ import annotations

import gzip
import json
import re
import time
from pathlib import Path

from onnx_rerank_integrations import TextCrossEncoder

PASSAGES = Path(__file__).parent / "notebooks" / "data" / "factbook" / "corpus.jsonl.gz"
QUESTION = "What catastrophe did atomic energy bring in the eighties?"
KEPT = 500
SHOWN = 3


def main() -> None:
    started = time.perf_counter()
    with gzip.open(PASSAGES, "rt", encoding="utf-8") as lines:
        passages = [json.loads(line) for line in lines]
    texts = [f"{passage['title']}. {passage['text']}" for passage in passages]
    words = TextCrossEncoder("lexical")
    embedded = TextCrossEncoder("embedded")
    by_words = words.rank(QUESTION, texts)
    cascade = TextCrossEncoder.cascade([words, embedded], keep=[KEPT])
    by_meaning = cascade.rank(QUESTION, texts, top_n=SHOWN)
    seconds = time.perf_counter() - started
    place = {ranked.index: position for position, ranked in enumerate(by_words, start=1)}

    def show(heading, ranked):
        print(f"\n{heading}")
        for position, one in enumerate(ranked, start=1):
            passage = passages[one.index]
            print(f"  {position}. {passage['title']}")
            print(f"     {best_sentence(embedded, passage['text'])}")

    print(f"Question: {QUESTION}")
    show("By words alone (model='lexical'):", by_words[:SHOWN])
    show(f"By meaning (the best {KEPT} of these, reranked by model='embedded'):", by_meaning)
    best = by_meaning[0].index
    print(f"\nThe answer is number {place[best]} of {len(texts):,} by words alone. {seconds:.1f} s for both, offline.")


def best_sentence(encoder: TextCrossEncoder, text: str) -> str:
    """The sentence that answers best, as the same model sees it."""
    sentences = re.split(r"(?<=[.;])\s+", text)
    return encoder.rank(QUESTION, sentences, top_n=1)[0].text


if __name__ == "__main__":
    main()
