"""Writes the generated parts of the README and the docs: `python -m tests.generate_docs`. A test checks them."""

from __future__ import annotations

import re
from pathlib import Path
from typing import Any

from onnx_rerank_integrations import TextCrossEncoder
from onnx_rerank_integrations.extras.markdown import markdown_table

ROOT = Path(__file__).parent.parent

SHORT_LIST = (
    "embedded",
    "Xenova/ms-marco-MiniLM-L-6-v2",
    "Xenova/ms-marco-MiniLM-L-12-v2",
    "cross-encoder/ms-marco-TinyBERT-L2-v2",
    "BAAI/bge-reranker-base",
    "BAAI/bge-reranker-v2-m3",
    "jinaai/jina-reranker-v2-base-multilingual",
    "mixedbread-ai/mxbai-rerank-base-v1",
    "Alibaba-NLP/gte-reranker-modernbert-base",
)


def models_table(names: tuple[str, ...] | None = None) -> str:
    """The registry as Markdown: all of it, or the named models in that order."""
    models = {model["model"]: model for model in TextCrossEncoder.list_supported_models()}
    rows = [_row(models[name]) for name in names or models]
    return markdown_table(["model", "GB", "languages", "max tokens", "licence"], rows)


def _row(model: dict[str, Any]) -> list[str]:
    known = [model["model"], model["size_in_GB"], model["languages"], model["max_length"], model["license"]]
    return ["" if value is None else str(value) for value in known]


def generated() -> dict[Path, str]:
    """Each file with its generated part made anew."""
    readme = ROOT / "README.md"
    models = ROOT / "docs" / "models.md"
    return {
        readme: between(readme.read_text(encoding="utf-8"), "models", models_table(SHORT_LIST)),
        models: between(models.read_text(encoding="utf-8"), "models", models_table()),
    }


def between(text: str, mark: str, content: str) -> str:
    """The text with what stands between ``<!-- mark: ... -->`` and ``<!-- /mark -->`` replaced."""
    pattern = re.compile(rf"(<!-- {mark}:[^>]*-->\n).*?(<!-- /{mark} -->)", re.DOTALL)
    replaced, count = pattern.subn(lambda found: f"{found[1]}{content.rstrip()}\n{found[2]}", text)
    if count != 1:
        raise ValueError(f"the mark {mark!r} stands {count} times in the text, not once")
    return replaced


if __name__ == "__main__":
    for path, text in generated().items():
        path.write_text(text, encoding="utf-8")
        print(f"wrote {path.relative_to(ROOT)}")
