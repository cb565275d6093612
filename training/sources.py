"""Reads the training data: which sources the embedded model may learn from, and their pairs and passages."""

from __future__ import annotations

import gzip
import json
from collections.abc import Iterator
from dataclasses import dataclass
from pathlib import Path
from typing import Any

# CC BY-SA: nothing of these may end in a file that ships under another licence.
SHARE_ALIKE = ("squad_dev_v1.1", "squad_nqg_test_sentences", "qed_dev")


@dataclass(frozen=True)
class QueryPassage:
    """One training pair: a question and a passage that answers it."""

    source: str
    query: str
    passage: str
    group: str


@dataclass(frozen=True)
class Section:
    """One passage of plain text and the title and heading it stood under."""

    source: str
    title: str
    heading: str
    text: str


def read_pairs(data: Path, leave_out: tuple[str, ...] = ()) -> list[QueryPassage]:
    """Question-passage pairs in file order, without share-alike sources and without those in `leave_out`."""
    return [
        QueryPassage(row["source"], row["query"], row["passage"], row["group"] or "")
        for row in _rows(data / "train" / "pairs.en.jsonl.gz", leave_out)
    ]


def read_judges(data: Path) -> list[QueryPassage]:
    """The share-alike question sources: nothing is learned or chosen from them, so they can judge what was."""
    return [
        QueryPassage(row["source"], row["query"], row["passage"], row["group"] or "")
        for row in _all_rows(data / "train" / "pairs.en.jsonl.gz")
        if row["source"] in SHARE_ALIKE
    ]


def read_sections(data: Path, leave_out: tuple[str, ...] = ()) -> list[Section]:
    """Plain text passages in file order, without share-alike sources and without those in `leave_out`."""
    return [
        Section(row["source"], row["title"] or "", row["heading"] or "", row["text"])
        for row in _rows(data / "train" / "text.en.jsonl.gz", leave_out)
    ]


def _rows(path: Path, leave_out: tuple[str, ...]) -> Iterator[dict[str, str | None]]:
    for row in _all_rows(path):
        if row["source"] not in SHARE_ALIKE + leave_out:
            if "SA" in row["license"].upper().replace("-", " ").split():
                raise ValueError(f"{row['source']} is share-alike ({row['license']}): add it to SHARE_ALIKE")
            yield row


def _all_rows(path: Path) -> Iterator[dict[str, Any]]:
    with gzip.open(path, "rt", encoding="utf-8") as lines:
        yield from map(json.loads, lines)
