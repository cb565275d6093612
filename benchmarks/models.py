"""The models that are timed: random weights at real sizes, and the two of the wheel; built once into benchmarks/models.

Random weights cost exactly what trained ones of the same shape cost. Torch and transformers build them; nothing is
downloaded. The classification head is scaled so that the scores of the benchmark's own passages have mean 0 and
standard deviation 2: with the raw head they would differ by a few hundredths, and a contender that scores wrongly
could pass the check that all contenders agree.
"""

import hashlib
import json
import shutil
from dataclasses import asdict, dataclass
from pathlib import Path
from typing import Any

from benchmarks.texts import PROSE, WORKLOADS, make_groups, prose

HERE = Path(__file__).parent
MODELS = HERE / "models"
WHEEL = HERE.parent / "onnx_rerank_integrations" / "models"
# The tokenizer of the BERT models too.
LEXICAL = WHEEL / "lexical"

MAX_LENGTH = 512
# The exporter that made most of the hub's ONNX files (optimum's, which traces), at an opset of their years.
OPSET = 17
CALIBRATION_SEED = 1


@dataclass(frozen=True)
class ModelSize:
    """The shape of a BERT or XLM-R cross-encoder, and the workloads timed on it by default."""

    name: str
    family: str
    layers: int
    hidden: int
    heads: int
    intermediate: int
    vocabulary: int
    workloads: tuple[str, ...]

    @property
    def folder(self) -> Path:
        return MODELS / self.name

    def __str__(self) -> str:
        return f"{self.family} {self.layers}x{self.hidden}, {self.vocabulary:,} tokens"

    def useful_flops(self, tokens: int, squares: int) -> float:
        """Floating-point operations of the whole model without padding; embeddings and head left out.

        Per layer and token: 4 projections of hidden x hidden and 2 of hidden x intermediate, 2 operations per weight;
        attention adds 2 * length * hidden for the scores and as much for the context.

        Args:
            tokens: Sum of the pairs' lengths.
            squares: Sum of the squares of the pairs' lengths.
        """
        weights = 4 * self.hidden**2 + 2 * self.hidden * self.intermediate
        return self.layers * (2.0 * tokens * weights + 4.0 * squares * self.hidden)


@dataclass(frozen=True)
class OwnModel:
    """A model of the wheel, laid out as the peers want it; its useful operations aren't those of a cross-encoder."""

    name: str
    workloads: tuple[str, ...]

    @property
    def folder(self) -> Path:
        return MODELS / self.name

    def __str__(self) -> str:
        return "inside the package"

    def useful_flops(self, tokens: int, squares: int) -> None:
        """Not counted: `lexical` multiplies no matrices, `embedded` does so in int8."""


MEMORY = ("M-1k", "M-10k", "M-100k")

SIZES: dict[str, ModelSize | OwnModel] = {
    size.name: size
    for size in (
        OwnModel("lexical", ("W1", "W2", "W3", "W4", *MEMORY)),
        OwnModel("embedded", ("W1", "W4")),
        ModelSize("tiny", "BERT", 2, 128, 2, 512, 30_522, ("W1", "W2", "W3", "W4", *MEMORY)),
        ModelSize("minilm", "BERT", 6, 384, 12, 1536, 30_522, ("W1", "W2-100", "W3-8", "W4")),
        ModelSize("xlmr", "XLM-R", 12, 768, 12, 3072, 250_002, ("W1-20", "W4")),
    )
}


def build(size: ModelSize | OwnModel) -> Path:
    """The model's folder, built unless it is there already with the same recipe."""
    recipe = json.loads(json.dumps({**asdict(size), "opset": OPSET, "made from": _hash_of_sources(size)}))
    del recipe["workloads"]
    stamp = size.folder / "recipe.json"
    if stamp.exists() and json.loads(stamp.read_text(encoding="utf-8")) == recipe:
        _quantize(size)
        return size.folder
    shutil.rmtree(size.folder, ignore_errors=True)
    size.folder.mkdir(parents=True)
    print(f"building {size.name} ({size}) ...", flush=True)
    if isinstance(size, OwnModel):
        _copy_own(WHEEL / size.name, size.folder)
    else:
        _write_tokenizer(size)
        _write_model(size)
    stamp.write_text(json.dumps(recipe, indent=1) + "\n", encoding="utf-8")
    _quantize(size)
    return size.folder


def _quantize(size: ModelSize | OwnModel) -> None:
    """The int8 graphs of a transformer: dynamic as most of the hub's are, static as `onnx-rerank quantize` makes it."""
    if isinstance(size, OwnModel):
        return
    folder = size.folder / "onnx"
    if not (folder / "model_int8_dynamic.onnx").exists():
        from onnxruntime.quantization import QuantType, quantize_dynamic

        dynamic = folder / "model_int8_dynamic.onnx"
        quantize_dynamic(folder / "model.onnx", dynamic, per_channel=True, weight_type=QuantType.QInt8)
    if not (folder / "model_int8_static.onnx").exists():
        import onnx

        from onnx_rerank_integrations import TextCrossEncoder
        from onnx_rerank_integrations.extras.quantize import batches, quantized_graph

        # Other passages than those that are timed and compared.
        groups = make_groups(WORKLOADS["check"], seed=CALIBRATION_SEED)
        pairs = [(query, document) for query, documents in groups for document in documents]
        encoder = TextCrossEncoder(size.folder, optimize="off")
        onnx.save(
            quantized_graph(folder / "model.onnx", batches(encoder, pairs), mode="static"),
            folder / "model_int8_static.onnx",
        )


def _hash_of_sources(size: ModelSize | OwnModel) -> str:
    """Of the files a model is made from: an own one's, the lexical tokenizer for BERT, the prose for XLM-R."""
    if isinstance(size, OwnModel):
        files = sorted(path for path in (WHEEL / size.name).iterdir() if path.is_file())
    else:
        files = [LEXICAL / "tokenizer.json" if size.family == "BERT" else PROSE]
    return hashlib.sha256(b"".join(path.read_bytes() for path in files)).hexdigest()


def _copy_own(source: Path, folder: Path) -> None:
    (folder / "onnx").mkdir()
    for name in ("tokenizer.json", "tokenizer_config.json", "config.json"):
        shutil.copyfile(source / name, folder / name)
    shutil.copyfile(source / "model.onnx", folder / "onnx" / "model.onnx")
    settings = json.loads((folder / "tokenizer_config.json").read_text(encoding="utf-8"))
    special = {name: token for name, token in settings.items() if name.endswith("_token")}
    _write_json(folder / "special_tokens_map.json", special)


def _write_tokenizer(size: ModelSize) -> None:
    """tokenizer.json and the two small files that FastEmbed and FlashRank read beside it."""
    if size.family == "BERT":
        shutil.copyfile(LEXICAL / "tokenizer.json", size.folder / "tokenizer.json")
        special = {"unk_token": "[UNK]", "sep_token": "[SEP]", "pad_token": "[PAD]", "cls_token": "[CLS]"}
        special["mask_token"] = "[MASK]"
        inputs = ["input_ids", "token_type_ids", "attention_mask"]
    else:
        _train_unigram().save(str(size.folder / "tokenizer.json"))
        special = {"bos_token": "<s>", "eos_token": "</s>", "unk_token": "<unk>", "sep_token": "</s>"}
        special |= {"pad_token": "<pad>", "cls_token": "<s>", "mask_token": "<mask>"}
        inputs = ["input_ids", "attention_mask"]
    settings: dict[str, Any] = {"tokenizer_class": "PreTrainedTokenizerFast", "model_max_length": MAX_LENGTH}
    _write_json(size.folder / "tokenizer_config.json", settings | {"model_input_names": inputs} | special)
    _write_json(size.folder / "special_tokens_map.json", special)


def _train_unigram() -> Any:
    """A SentencePiece-like tokenizer with XLM-R's special tokens and pair template."""
    from tokenizers import Tokenizer, decoders, models, normalizers, pre_tokenizers, processors, trainers

    tokenizer = Tokenizer(models.Unigram())
    tokenizer.normalizer = normalizers.NFKC()
    tokenizer.pre_tokenizer = pre_tokenizers.Metaspace()
    tokenizer.decoder = decoders.Metaspace()
    special = ["<s>", "<pad>", "</s>", "<unk>", "<mask>"]
    trainer = trainers.UnigramTrainer(vocab_size=8_000, special_tokens=special, unk_token="<unk>", show_progress=False)
    tokenizer.train_from_iterator((paragraph for _, paragraph in prose()), trainer)
    tokenizer.post_processor = processors.TemplateProcessing(
        single="<s> $A </s>", pair="<s> $A </s> </s> $B </s>", special_tokens=[("<s>", 0), ("</s>", 2)]
    )
    return tokenizer


def _write_model(size: ModelSize) -> None:
    """config.json, model.safetensors for torch, onnx/model.onnx for everybody else."""
    import torch
    from transformers import (
        BertConfig,
        BertForSequenceClassification,
        XLMRobertaConfig,
        XLMRobertaForSequenceClassification,
    )

    shape = {
        "vocab_size": size.vocabulary,
        "hidden_size": size.hidden,
        "num_hidden_layers": size.layers,
        "num_attention_heads": size.heads,
        "intermediate_size": size.intermediate,
        "num_labels": 1,
        # Above BERT's 0.02, so that attention isn't uniform and the scores depend on every token.
        "initializer_range": 0.05,
        "attn_implementation": "eager",
    }
    torch.manual_seed(0)
    if size.family == "BERT":
        names = ["input_ids", "attention_mask", "token_type_ids"]
        model = BertForSequenceClassification(BertConfig(max_position_embeddings=512, **shape)).eval()
        head = model.classifier
    else:
        names = ["input_ids", "attention_mask"]
        # Two positions more than are usable, one token type and these ids, as in the published model.
        ids = {"bos_token_id": 0, "pad_token_id": 1, "eos_token_id": 2}
        config = XLMRobertaConfig(max_position_embeddings=514, type_vocab_size=1, layer_norm_eps=1e-5, **ids, **shape)
        model = XLMRobertaForSequenceClassification(config).eval()
        head = model.classifier.out_proj

    class Logits(torch.nn.Module):
        def __init__(self) -> None:
            super().__init__()
            self.model = model

        def forward(self, *values: torch.Tensor) -> torch.Tensor:
            return self.model(**dict(zip(names, values, strict=True))).logits

    encoded = _encode_check_pairs(size)
    example = tuple(torch.tensor(encoded[name]) for name in names)
    with torch.no_grad():
        logits = Logits()(*example)
        scale = 2.0 / logits.std()
        head.weight.mul_(scale)
        head.bias.copy_((head.bias - logits.mean()) * scale)
    model.save_pretrained(size.folder)
    (size.folder / "onnx").mkdir()
    axes = {name: {0: "batch", 1: "sequence"} for name in names}
    torch.onnx.export(
        Logits().eval(),
        tuple(values[:2] for values in example),
        str(size.folder / "onnx" / "model.onnx"),
        input_names=names,
        output_names=["logits"],
        dynamic_axes={**axes, "logits": {0: "batch"}},
        opset_version=OPSET,
        dynamo=False,
    )


def _encode_check_pairs(size: ModelSize) -> dict[str, list[list[int]]]:
    from tokenizers import Tokenizer

    tokenizer = Tokenizer.from_file(str(size.folder / "tokenizer.json"))
    tokenizer.enable_truncation(MAX_LENGTH)
    bert = size.family == "BERT"
    tokenizer.enable_padding(pad_id=0 if bert else 1, pad_token="[PAD]" if bert else "<pad>")
    pairs = [(query, document) for query, group in make_groups(WORKLOADS["check"]) for document in group]
    encodings = tokenizer.encode_batch(pairs)
    return {
        "input_ids": [encoding.ids for encoding in encodings],
        "attention_mask": [encoding.attention_mask for encoding in encodings],
        "token_type_ids": [encoding.type_ids for encoding in encodings],
    }


def token_lengths(folder: Path, groups: list[tuple[str, list[str]]]) -> list[int]:
    """Tokens of each pair as the model reads it: special tokens counted, cut to the model's length."""
    from tokenizers import Tokenizer

    tokenizer = Tokenizer.from_file(str(folder / "tokenizer.json"))
    settings = json.loads((folder / "tokenizer_config.json").read_text(encoding="utf-8"))
    tokenizer.enable_truncation(settings["model_max_length"])
    tokenizer.no_padding()
    pairs = [(query, document) for query, documents in groups for document in documents]
    return [len(encoding.ids) for encoding in tokenizer.encode_batch_fast(pairs)]


def _write_json(path: Path, value: Any) -> None:
    path.write_text(json.dumps(value, indent=1) + "\n", encoding="utf-8")
