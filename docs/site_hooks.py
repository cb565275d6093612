"""What the site changes of the pages: links that lead out of docs/ go to the repository, and marks for our tests go."""

from __future__ import annotations

import re
from typing import Any

REPOSITORY = "https://github.com/onnx-rerank-integrations/onnx-rerank-integrations/blob/main/"


def on_page_markdown(markdown: str, *, page: Any, **_: Any) -> str:
    """``../benchmarks/README.md`` is a file of the repository, and no page of the site."""
    markdown = markdown.replace("```python not-run\n", "```python\n")
    up = "../" * (page.file.src_uri.count("/") + 1)
    return re.sub(rf"\]\({re.escape(up)}(?!\.)", f"]({REPOSITORY}", markdown)
