"""Writes the generated parts of the README and the docs: `python -m tests.generate_docs`. A test checks them."""

from __future__ import annotations

import json
import re
from collections.abc import Callable, Sequence
from pathlib import Path
from types import UnionType
from typing import Annotated, Any, Literal, Union, get_args, get_origin

from pydantic.fields import FieldInfo
from pydantic_core import PydanticUndefined
from typer.testing import CliRunner

from onnx_rerank_integrations import TextCrossEncoder, langchain, llama_index
from onnx_rerank_integrations.core.options import defaults, deprecated, descriptions, examples, option_types
from onnx_rerank_integrations.door import RerankOptions
from onnx_rerank_integrations.extras.cli.app import COMMANDS, app
from onnx_rerank_integrations.extras.markdown import markdown_table
from tests import peers

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
    options = ROOT / "docs" / "options.md"
    reliability = ROOT / "docs" / "reliability.md"
    commands = ROOT / "docs" / "command-line.md"
    options_text = options.read_text(encoding="utf-8")
    for mark, table in options_tables().items():
        options_text = between(options_text, mark, table)
    pages = {ROOT / "docs" / "peers" / f"{peer.slug}.md": peers.page(peer) for peer in peers.PEERS}
    migrating = ROOT / "docs" / "migrating.md"
    migrating_text = migrating.read_text(encoding="utf-8")
    for peer in peers.PEERS:
        migrating_text = between(migrating_text, f"peer-{peer.slug}", peers.tables(peer))
    return {
        migrating: migrating_text,
        **pages,
        ROOT / "docs" / "llms.txt": llms(),
        options: options_text,
        commands: between(commands.read_text(encoding="utf-8"), "commands", command_line()),
        readme: between(readme.read_text(encoding="utf-8"), "models", models_table(SHORT_LIST)),
        reliability: between(reliability.read_text(encoding="utf-8"), "soak", soak_table()),
        models: between(models.read_text(encoding="utf-8"), "models", models_table()),
    }


def soak_table() -> str:
    """The counts of the last long run: what `make soak` wrote."""
    counts = json.loads((ROOT / "docs" / "reliability.json").read_text(encoding="utf-8"))
    rows = [[part, what, f"{number:,}"] for part, found in counts.items() for what, number in found.items()]
    return markdown_table(["part", "what was tried", "number"], rows)


def options_tables() -> dict[str, str]:
    """By mark: the encoder's options, those that the doors add, and those that one door has alone."""
    encoder = [
        (name, option_types()[name], default, descriptions()[name], examples()[name])
        for name, default in defaults().items()
        if name not in deprecated()
    ]
    shared = [(name, field.annotation, field, str(field.description), field.examples) for name, field in DOORS]
    own = [
        (name, field.annotation, field, str(field.description), field.examples)
        for door in (langchain.OnnxRerank, langchain.OnnxRerankRetriever, llama_index.OnnxRerank)
        for name, field in door.model_fields.items()
        if name in ("score_key", "retriever", "k", "metadata_mode")
    ]
    return {
        "encoder-options": _options_table(encoder),
        "door-options": _options_table([(*row[:4], row[4][0]) for row in shared if row[4]]),
        "own-options": _options_table([(*row[:4], (row[4] or [""])[0]) for row in own]),
    }


DOORS = [
    (name, field)
    for name, field in RerankOptions.model_fields.items()
    if name not in defaults() or name in ("activation", "lazy_load")
]
"""The fields that the doors share, beside the encoder's options."""


def _options_table(rows: list[tuple[str, Any, Any, str, Any]]) -> str:
    return markdown_table(
        ["option", "type", "default", "what it does", "example"],
        [
            [
                f"`{name}`",
                f"`{_type_text(kind)}`",
                _default_text(default),
                text.replace("``", "`"),
                f"`{name}={example!r}`" if example else "",
            ]
            for name, kind, default, text, example in rows
        ],
    )


def _type_text(kind: Any) -> str:
    """The type in words that need no imports."""
    origin, inside = get_origin(kind), get_args(kind)
    if origin is Literal:
        return " or ".join(map(repr, inside))
    if origin in (Union, UnionType):
        return " or ".join(map(_type_text, inside))
    if origin is Annotated:
        return _type_text(inside[0])
    if origin is Callable:
        return "function"
    if origin is dict or kind in (dict, Any):
        return "dict"
    if isinstance(origin, type) and issubclass(origin, Sequence):
        return f"{origin.__name__.lower()} of {_type_text(inside[0])}"
    return "None" if kind is type(None) else getattr(kind, "__name__", str(kind))


def _default_text(field: Any) -> str:
    default = field.default if isinstance(field, FieldInfo) else field
    if default is PydanticUndefined:
        return "the encoder's default" if field.default_factory else "required"
    return f"`{getattr(default, 'value', default)!r}`"


def command_line() -> str:
    """What every command's ``--help`` says."""
    environment = {"COLUMNS": "88", "NO_COLOR": "1", "TERM": "dumb"}
    runner = CliRunner()
    parts = []
    for name in ["", *sorted(command.__name__ for command in COMMANDS)]:
        shown = runner.invoke(app, [*name.split(), "--help"], env=environment, prog_name="onnx-rerank")
        parts.append(f"## onnx-rerank {name}".rstrip() + f"\n\n```text\n{shown.stdout.strip()}\n```\n")
    return "\n".join(parts)


def llms() -> str:
    """The pages by their titles, with what they are about, for language models (llmstxt.org)."""
    pages, moving = [], []
    for path in sorted((ROOT / "docs").rglob("*.md")):
        page = path.relative_to(ROOT / "docs").with_suffix("").as_posix()
        title = path.read_text(encoding="utf-8").splitlines()[0]
        entry = f"- [{title.lstrip('# ')}]({SITE}{'' if page == 'index' else f'{page}/'})"
        if page.startswith("peers/"):
            moving.append(entry)
        elif not page.startswith("listing/"):
            pages.append(f"{entry}: {NOTES[page]}")
    return "\n".join([LLMS, "## Documentation\n", *pages, "\n## Moving from another library\n", *moving]) + "\n"


LLMS = """# onnx-rerank-integrations

> Rescores retrieved documents in LangChain, LlamaIndex and Haystack with ONNX cross-encoders, fast on a CPU, no torch.

`OnnxRerank` in `onnx_rerank_integrations.langchain`, `.llama_index` and `.haystack` is a drop-in reranker with the same
options (`model`, `top_n`, `score_threshold`, ...); `TextCrossEncoder` in `onnx_rerank_integrations` is the core, under
FastEmbed's names. `model="embedded"` is inside the package and works offline; any hub id with ONNX files works, too.
"""


NOTES = {
    "api": "signatures and docstrings of the core, the doors and the errors",
    "architecture": "what lies where, the road of one call, where to add what",
    "choosing-a-model": "a first pick, measuring on your own data, which ONNX file, folders of your own",
    "command-line": "rank, evaluate, serve, batch, bench, quantize and export, with every flag",
    "devices": "GPUs and other execution providers, precision, int8 on different CPUs",
    "faq": "scores, models, offline use, memory, threads, which text is scored",
    "fastest": "int8, bf16, cascades and small models side by side, with what each costs in quality",
    "haystack": "the ranker component",
    "index": "where to begin, by what you want to do",
    "langchain": "retriever, step of a chain or graph, agent's tool, threshold, async",
    "llama-index": "node postprocessor: engines, events, async",
    "long-documents": "truncation, windows, memory",
    "migrating": "code before and after, and each peer's signature",
    "models": "models known by name, with size, languages, length and licence",
    "options": "every option with type, default, unit and example",
    "public-api": "what SemVer covers, an encoder of your own",
    "reliability": "what is promised under load, faults and forks, with limits and numbers",
    "scale": "files of any size, Ray, Spark, costs",
    "scores-and-thresholds": "logits and sigmoids, choosing `score_threshold`, labels, ties",
    "serving": "an HTTP server for clients of Cohere, Jina and TEI",
    "speed": "what makes it fast, threads, int8, cascades, caches",
    "testing": 'testing an app with `model="lexical"`',
}
"""What each page is about."""


SITE = "https://onnx-rerank-integrations.github.io/onnx-rerank-integrations/"


def between(text: str, mark: str, content: str) -> str:
    """The text with what stands between ``<!-- mark: ... -->`` and ``<!-- /mark -->`` replaced."""
    pattern = re.compile(rf"(<!-- {mark}:[^>]*-->\n).*?(<!-- /{mark} -->)", re.DOTALL)
    replaced, count = pattern.subn(lambda found: f"{found[1]}{content.rstrip()}\n{found[2]}", text)
    if count != 1:
        raise ValueError(f"the mark {mark!r} stands {count} times in the text, not once")
    return replaced


if __name__ == "__main__":
    (ROOT / "docs" / "peers").mkdir(exist_ok=True)
    for path, text in generated().items():
        path.write_text(text, encoding="utf-8")
        print(f"wrote {path.relative_to(ROOT)}")
