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


def _only(**values: Any) -> Change:
    """The file holds these values and no others."""
    return lambda content: (content.clear(), content.update(values))


def _renamed(names: dict[str, str], *, model: Change | None = None, **parts: Any) -> Change:
    """A tokenizer.json whose special tokens have other names; `parts` of it are replaced."""

    def change(content: Json) -> None:
        vocabulary = content["model"]["vocab"]
        if isinstance(vocabulary, dict):
            content["model"]["vocab"] = {names.get(text, text): place for text, place in vocabulary.items()}
            content["model"]["unk_token"] = names.get("[UNK]", "[UNK]")
        else:
            texts = [names.get(text, text) for text, _ in vocabulary]
            content["model"]["vocab"] = [[text, score] for text, (_, score) in zip(texts, vocabulary, strict=True)]
            content["model"]["unk_id"] = texts.index("<unk>")
        for token in content["added_tokens"]:
            token["content"] = names.get(token["content"], token["content"])
        content.update({"post_processor": None, "decoder": None, **parts})
        if model is not None:
            model(content)

    return change


def _as_sentencepiece_bpe(content: Json) -> None:
    """The pieces of a Unigram vocabulary as a BPE's, each put together of two others, and every byte."""
    pieces = [text for text, _ in content["model"]["vocab"]]
    known = set(pieces)
    merges = [
        [text[:cut], text[cut:]]
        for text in pieces
        for cut in range(1, len(text))
        if not text.startswith("<") and {text[:cut], text[cut:]} <= known
    ]
    pieces += [f"<0x{byte:02X}>" for byte in range(256)]
    vocabulary = {text: place for place, text in enumerate(pieces)}
    content["model"] = {
        "type": "BPE", "vocab": vocabulary, "merges": merges, "unk_token": "<unk>", "fuse_unk": True,
        "byte_fallback": True,
    }  # fmt: skip


def _plain_mask(content: Json) -> None:
    content["added_tokens"][-1]["lstrip"] = False


_SQUARE = {"<s>": "[CLS]", "</s>": "[SEP]", "<mask>": "[MASK]"}
# each with the unknown token where the class has it
_ALBERT = {"<s>": "<pad>", "<pad>": "<unk>", "</s>": "[CLS]", "<unk>": "[SEP]", "<mask>": "[MASK]"}
_REMBERT = _ALBERT | {"<pad>": "[CLS]", "</s>": "<unk>"}
_XLNET = {"<s>": "<unk>", "</s>": "<cls>", "<unk>": "<sep>"}
_FUNNEL = {"[CLS]": "<cls>", "[SEP]": "<sep>", "[PAD]": "<pad>", "[UNK]": "<unk>", "[MASK]": "<mask>"}
_MPNET = _FUNNEL | {"[CLS]": "<s>", "[SEP]": "</s>", "[UNK]": "[UNK]"}
_GEMMA = {"<s>": "<bos>", "</s>": "<eos>"}
_ENDS = {"Sequence": {"id": "A", "type_id": 0}}, {"SpecialToken": {"id": "</s>", "type_id": 0}}
_DECODER_TEMPLATE = {
    "type": "TemplateProcessing",
    "single": list(_ENDS),
    "pair": [*_ENDS, {"Sequence": {"id": "B", "type_id": 0}}, _ENDS[1]],
    "special_tokens": {"</s>": {"id": "</s>", "ids": [2], "tokens": ["</s>"]}},
}

OTHER_CLASSES: dict[str, tuple[str, Change, str, str]] = {
    "albert": ("xlm-roberta", _renamed(_ALBERT), "AlbertTokenizer", "albert"),
    "rembert": (
        "xlm-roberta",
        _renamed(_REMBERT, model=_plain_mask, post_processor=_DECODER_TEMPLATE),
        "RemBertTokenizer",
        "rembert",
    ),
    "big-bird": ("xlm-roberta", _renamed(_SQUARE), "BigBirdTokenizer", "big_bird"),
    "xlnet": ("xlm-roberta", _renamed(_XLNET), "XLNetTokenizer", "xlnet"),
    "camembert": ("xlm-roberta", _renamed({}), "CamembertTokenizer", "camembert"),
    "funnel": ("bert", _renamed(_FUNNEL), "FunnelTokenizer", "funnel"),
    "mpnet": ("bert", _renamed(_MPNET), "MPNetTokenizer", "mpnet"),
    "llama": (
        "xlm-roberta",
        _renamed({}, model=_as_sentencepiece_bpe, post_processor=_DECODER_TEMPLATE),
        "LlamaTokenizer",
        "llama",
    ),
    "gemma": ("xlm-roberta", _renamed(_GEMMA, model=_as_sentencepiece_bpe), "GemmaTokenizer", "gemma"),
    "mistral": (
        "xlm-roberta",
        _renamed({}, model=_as_sentencepiece_bpe, post_processor=_DECODER_TEMPLATE),
        "LlamaTokenizer",
        "mistral",
    ),
}
"""Copies made to be of a class that no fixture has: fixture, change of tokenizer.json, class, model type."""

OTHER_SETTINGS: dict[str, Json] = {
    "as it is": {},
    "do_lower_case=True": {"do_lower_case": True},
    "do_lower_case=False": {"do_lower_case": False},
    "keep_accents=True": {"keep_accents": True},
    "strip_accents=False": {"strip_accents": False},
    "add_prefix_space=False": {"add_prefix_space": False},
    "legacy=True": {"legacy": True},
}

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
    **{
        f"{name}, {setting}": (fixture, change, _only(tokenizer_class=of_class, **values), _only(model_type=kind))
        for name, (fixture, change, of_class, kind) in OTHER_CLASSES.items()
        for setting, values in OTHER_SETTINGS.items()
    },
    **{
        f"{name} without its class": (fixture, change, _only(), _only(model_type=kind))
        for name, (fixture, change, of_class, kind) in OTHER_CLASSES.items()
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
