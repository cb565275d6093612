"""Copies of the parity fixtures whose JSON files say something else of the tokenizer, and the ids transformers reads.

    python -m tests.tokenizer_variants   # writes tokenizer_ids.json; needs transformers

`test_tokenizer_variants` compares our ids with those committed, and `test_parity_live` transformers' with them.
"""

from __future__ import annotations

import json
import shutil
import tempfile
from collections.abc import Callable
from pathlib import Path
from typing import Any

from tests.parity.fixtures import folder, names

IDS = Path(__file__).with_name("tokenizer_ids.json")

PAIRS = [
    ("What do BEES eat?", "Bees live on stored honey; a hive   stands in the sun."),
    ("résumé of the HIVE", "Ünïcode, the 金丝雀 bird,\nand\ta line break"),
    ("honey <new> bee", "[NEW] honey[NEW]bee <mask> [MASK] end"),
    ("", " "),
]

Json = dict[str, Any]
Change = Callable[[Json], Any]


def _set(**values: Any) -> Change:
    return lambda content: content.update(values)


def _nothing(content: Json) -> None:
    """Leaves the file as it is."""


def _normalizer(**values: Any) -> Change:
    return lambda content: content["normalizer"].update(values)


def _added(content: str, **flags: bool) -> Json:
    fields = dict.fromkeys(("lstrip", "rstrip", "normalized", "single_word", "special"), False)
    return {"__type": "AddedToken", "content": content, **fields, **flags}


def _listed(content: str, *, special: bool) -> Json:
    return {name: value for name, value in _added(content, special=special).items() if name != "__type"}


ENCODERS = ("bert", "distilbert", "electra", "roberta", "jina-bert", "xlm-roberta", "gte", "deberta-v2", "modernbert")

VARIANTS: dict[str, tuple[str, Change, Change, Change]] = {
    **{name: (name, _nothing, _nothing, _nothing) for name in names()},
    **{
        f"{name} cased": (name, _normalizer(lowercase=False), _set(do_lower_case=False), _nothing)
        for name in ("bert", "distilbert", "electra")
    },
    **{
        f"{name} lower case by its config": (name, _normalizer(lowercase=False), _nothing, _nothing)
        for name in ("bert", "electra")
    },
    **{f"{name} keeps accents": (name, _nothing, _set(strip_accents=False), _nothing) for name in ("bert", "electra")},
    **{
        f"{name} strips accents, cased": (name, _nothing, _set(strip_accents=True, do_lower_case=False), _nothing)
        for name in ("bert",)
    },
    **{
        f"{name} joins Chinese": (name, _nothing, _set(tokenize_chinese_chars=False), _nothing)
        for name in ("bert", "distilbert")
    },
    **{
        f"{name} add_prefix_space={value}": (name, _nothing, _set(add_prefix_space=value), _nothing)
        for name in ("roberta", "jina-bert", "xlm-roberta", "gte", "deberta-v2", "modernbert", "qwen3-seq-cls")
        for value in (True, False)
    },
    "deberta-v2 lower case": ("deberta-v2", _nothing, _set(do_lower_case=True), _nothing),
    "deberta-v2 by punctuation": ("deberta-v2", _nothing, _set(split_by_punct=True), _nothing),
    **{
        f"{name} without its class": (name, _nothing, lambda c: c.pop("tokenizer_class", None), _nothing)
        for name in ENCODERS
        if name != "jina-bert"  # a model_type of bert, whose class would read its byte-level words as unknown ones
    },
    **{
        f"{name} with extra special tokens": (
            name,
            _nothing,
            _set(extra_special_tokens={"x": "on", "y": "in"}),
            _nothing,
        )
        for name in ("bert", "xlm-roberta", "qwen3-seq-cls")
    },
    **{
        f"{name} with a token that takes the spaces": (
            name,
            _nothing,
            _set(mask_token=_added("[MASK]" if name == "bert" else "<mask>", lstrip=True, rstrip=True, special=True)),
            _nothing,
        )
        for name in ("bert", "roberta", "xlm-roberta")
    },
    **{
        f"{name} with listed tokens": (
            name,
            _nothing,
            _set(added_tokens_decoder={str(place): _listed(token, special=special)}),
            _nothing,
        )
        for name, place, token, special in (
            ("bert", 165, "in", True),
            ("bert-2-labels", 165, "in", False),
            ("xlm-roberta", 150, "on", False),
            ("modernbert", 262, "in", True),
        )
    },
    **{
        f"{name} of no class": (name, _nothing, _set(tokenizer_class="PreTrainedTokenizerFast"), _nothing)
        for name in ("bert", "roberta", "xlm-roberta", "deberta-v2")
    },
    "bert of no class, cased": (
        "bert",
        _normalizer(lowercase=False),
        _set(tokenizer_class="PreTrainedTokenizerFast", do_lower_case=True),
        _nothing,
    ),
    "bert with the older class's name": ("bert", _nothing, _set(tokenizer_class="BertTokenizerFast"), _nothing),
    "electra with its own class's name": ("electra", _nothing, _set(tokenizer_class="ElectraTokenizerFast"), _nothing),
    **{
        f"{name} with more special tokens": (name, _nothing, _set(additional_special_tokens=["on", "in"]), _nothing)
        for name in ("bert", "roberta", "xlm-roberta", "deberta-v2", "modernbert")
    },
    **{
        f"{name} with another padding": (name, _nothing, _set(padding_side="left", truncation_side="left"), _nothing)
        for name in ("bert", "roberta")
    },
    **{
        f"{name} splits special tokens": (name, _nothing, _set(split_special_tokens=True), _nothing)
        for name in ("bert", "roberta")
    },
    "bert truncated and padded by its file": (
        "bert",
        _set(
            truncation={"direction": "Left", "max_length": 9, "strategy": "LongestFirst", "stride": 0},
            padding={
                "strategy": {"Fixed": 32},
                "direction": "Left",
                "pad_to_multiple_of": None,
                "pad_id": 0,
                "pad_type_id": 0,
                "pad_token": "[PAD]",
            },
        ),
        _nothing,
        _nothing,
    ),
}


def make(name: str, place: Path) -> Path:
    """Writes a variant's folder below `place`."""
    fixture, *changes = VARIANTS[name]
    target = place / fixture
    shutil.copytree(folder(fixture), target)
    for file, change in zip(("tokenizer.json", "tokenizer_config.json", "config.json"), changes, strict=True):
        content = json.loads((target / file).read_text(encoding="utf-8"))
        change(content)
        (target / file).write_text(json.dumps(content), encoding="utf-8")
    return target


def transformers_ids(target: Path) -> list[list[int]]:
    """The ids that AutoTokenizer reads for the pairs, nothing cut."""
    from transformers import AutoTokenizer

    tokenizer = AutoTokenizer.from_pretrained(target)
    queries, documents = map(list, zip(*PAIRS, strict=True))
    return tokenizer(queries, documents, truncation=False, padding=False, verbose=False)["input_ids"]


def committed() -> dict[str, list[list[int]]]:
    ids: dict[str, list[list[int]]] = json.loads(IDS.read_text(encoding="utf-8"))["ids"]
    return ids


def main() -> None:
    from importlib.metadata import version

    with tempfile.TemporaryDirectory() as place:
        ids = {name: transformers_ids(make(name, Path(place) / str(i))) for i, name in enumerate(VARIANTS)}
    made_by = {library: version(library) for library in ("transformers", "tokenizers")}
    lines = ",\n".join(f"  {json.dumps(name)}: {json.dumps(value)}" for name, value in ids.items())
    IDS.write_text(f'{{\n "made_by": {json.dumps(made_by)},\n "ids": {{\n{lines}\n }}\n}}\n', encoding="utf-8")


if __name__ == "__main__":
    main()
