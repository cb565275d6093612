"""Fine-tunes a small encoder into a cross-encoder, for measurements that need trained weights (cascades, int8).

    python training/finetune_reranker.py ENCODER PAIRS OUT --minutes 25

ENCODER is a folder of transformers weights (all-MiniLM-L6-v2 was used), PAIRS the gzipped JSONL of (source, query,
passage), OUT the folder that is written. Nothing of it is shipped. Each step shows the model a few queries, each with
its passage and passages that BM25 finds for it in the same source, and asks it to tell them apart (softmax
cross-entropy). The learning rate falls with the time that is left, so any number of minutes ends well.
"""

from __future__ import annotations

import argparse
import gzip
import json
import random
import time
from collections import defaultdict
from pathlib import Path

import bm25s
import torch
from transformers import AutoModelForSequenceClassification, AutoTokenizer

LEFT_OUT = ("qamr",)
"""Its questions lean on their context."""

CANDIDATES = 30
NEGATIVES = 3
QUERIES_PER_STEP = 12
MAX_LENGTH = 128
LEARNING_RATE = 1e-4
WARM_UP = 0.05

Example = tuple[str, str, list[str]]


def examples(path: Path, per_source: int) -> list[Example]:
    """(query, passage, passages that BM25 ranks high for the query and that answer none of its like)."""
    by_source: dict[str, list[tuple[str, str]]] = defaultdict(list)
    with gzip.open(path, "rt", encoding="utf-8") as lines:
        for pair in map(json.loads, lines):
            if pair["source"] not in LEFT_OUT:
                by_source[pair["source"]].append((pair["query"], pair["passage"]))
    found: list[Example] = []
    for pairs in by_source.values():
        passages = list(dict.fromkeys(passage for _, passage in pairs))
        answers: dict[str, set[str]] = defaultdict(set)
        for query, passage in pairs:
            answers[query].add(passage)
        index = bm25s.BM25()
        index.index(bm25s.tokenize(passages, stopwords="en", show_progress=False), show_progress=False)
        chosen = random.sample(pairs, min(per_source, len(pairs)))
        queries = bm25s.tokenize([query for query, _ in chosen], stopwords="en", show_progress=False)
        ranked, _ = index.retrieve(queries, k=min(CANDIDATES, len(passages)), show_progress=False)
        for (query, passage), row in zip(chosen, ranked, strict=True):
            wrong = [passages[i] for i in row if passages[i] not in answers[query]]
            if len(wrong) >= NEGATIVES:
                found.append((query, passage, wrong))
    return found


def train(encoder: str, data: list[Example], minutes: float) -> tuple[torch.nn.Module, AutoTokenizer, int]:
    """The model after so many minutes, and the number of queries it saw."""
    tokenizer = AutoTokenizer.from_pretrained(encoder)
    model = AutoModelForSequenceClassification.from_pretrained(encoder, num_labels=1, hidden_dropout_prob=0.0)
    model.train()
    optimizer = torch.optim.AdamW(model.parameters(), lr=LEARNING_RATE, weight_decay=0.01)
    start = last = time.monotonic()
    seen, losses = 0, []
    while (spent := (time.monotonic() - start) / (60 * minutes)) < 1:
        for group in optimizer.param_groups:
            group["lr"] = LEARNING_RATE * min(spent / WARM_UP + 0.01, (1 - spent) / (1 - WARM_UP), 1)
        batch = random.sample(data, QUERIES_PER_STEP)
        texts = [(query, text) for query, right, wrong in batch for text in (right, *random.sample(wrong, NEGATIVES))]
        inputs = tokenizer(
            *map(list, zip(*texts, strict=True)),
            truncation=True,
            max_length=MAX_LENGTH,
            padding=True,
            return_tensors="pt",
        )
        with torch.autocast("cpu", torch.bfloat16):
            logits = model(**inputs).logits.float().view(len(batch), 1 + NEGATIVES)
        loss = torch.nn.functional.cross_entropy(logits, torch.zeros(len(batch), dtype=torch.long))
        loss.backward()
        torch.nn.utils.clip_grad_norm_(model.parameters(), 1.0)
        optimizer.step()
        optimizer.zero_grad()
        seen += len(batch)
        losses.append(loss.item())
        if time.monotonic() - last > 60:
            last = time.monotonic()
            print(f"{spent:4.0%}  {seen} queries  loss {sum(losses) / len(losses):.3f}", flush=True)
            losses = []
    return model.eval(), tokenizer, seen


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("encoder")
    parser.add_argument("pairs", type=Path)
    parser.add_argument("out", type=Path)
    parser.add_argument("--minutes", type=float, default=25)
    parser.add_argument("--per-source", type=int, default=6000)
    options = parser.parse_args()
    random.seed(0)
    torch.manual_seed(0)
    data = examples(options.pairs, options.per_source)
    print(f"{len(data)} examples", flush=True)
    model, tokenizer, seen = train(options.encoder, data, options.minutes)
    model.save_pretrained(options.out)
    tokenizer.save_pretrained(options.out)
    print(f"saw {seen} queries; written to {options.out}")


if __name__ == "__main__":
    main()
