"""`make demo` shows an answer that no word of the question leads to."""

from __future__ import annotations

import re
import subprocess
import sys
from pathlib import Path

import pytest

DEMO = Path(__file__).parent.parent / "demo.py"


@pytest.mark.showcase
def test_the_answer_is_on_top_by_meaning_and_shares_no_word_with_the_question() -> None:
    done = subprocess.run([sys.executable, str(DEMO)], capture_output=True, text=True, check=True, timeout=800)

    by_meaning, by_words = done.stdout.split("By words alone")
    question, first = by_meaning.split("\n", 1)[0], re.search(r"1\. (.*?)  2\. ", by_meaning, re.DOTALL)
    assert first, by_meaning
    assert "Sweden" in first[1]
    assert "ice floes in the surrounding waters" in first[1]
    assert "Sweden" not in by_words
    asked = set(re.findall(r"[a-z]{3,}", question.lower().split(". ")[1])) - {"where"}
    assert asked
    assert not asked & set(re.findall(r"[a-z]{3,}", first[1].lower()))
