"""A real ONNX cross-encoder so small that its scores can be added up by hand.

Every token has a value; the score of a pair is the sum over its tokens of

    value * (1 + token type) * (position + 1)

so a lost mask ([PAD] is worth 100), lost token types, another order, or padding on the wrong side all change it.
Words: a 1, b 2, c 3, ... z 26; [CLS] is worth 0.5 and [SEP] 0.25. The word "nan" makes the score NaN.
"""

from __future__ import annotations

import json
import string
from pathlib import Path
from typing import Literal

import numpy as np
import onnx
from onnx import TensorProto, helper, numpy_helper
from tokenizers import Tokenizer, models, pre_tokenizers, processors

VALUES = {"[PAD]": 100.0, "[CLS]": 0.5, "[SEP]": 0.25, "[UNK]": 7.0, "nan": float("nan")} | {
    letter: float(place) for place, letter in enumerate(string.ascii_lowercase, start=1)
}

Head = Literal["column", "flat", "two", "three", "per_token"]


def toy_score(query: str, document: str) -> float:
    """The score by hand, for texts of single-letter words."""
    first = ["[CLS]", *query.split(), "[SEP]"]
    tokens = [*first, *document.split(), "[SEP]"]
    types = [0] * len(first) + [1] * (len(tokens) - len(first))
    return sum(
        VALUES.get(token, VALUES["[UNK]"]) * (1 + token_type) * position
        for position, (token, token_type) in enumerate(zip(tokens, types, strict=True), start=1)
    )


def make_toy(
    folder: Path,
    *,
    head: Head = "column",
    inputs: tuple[str, ...] = ("input_ids", "attention_mask", "token_type_ids"),
    element_type: int = TensorProto.INT64,
    batch: int | str = "batch",
    length: int | str = "length",
    model_file: str = "model.onnx",
    config: dict[str, object] | None = None,
    tokenizer_config: dict[str, object] | None = None,
) -> Path:
    """Writes the toy's folder, as a user would have one, and returns it."""
    (folder / model_file).parent.mkdir(parents=True, exist_ok=True)
    onnx.save(_graph(head, inputs, element_type, batch, length), folder / model_file)
    toy_tokenizer().save(str(folder / "tokenizer.json"))
    (folder / "config.json").write_text(json.dumps({"model_type": "bert", "hidden_size": 8, **(config or {})}))
    settings = {"model_max_length": 64, "pad_token": "[PAD]", **(tokenizer_config or {})}
    (folder / "tokenizer_config.json").write_text(json.dumps(settings))
    return folder


def toy_tokenizer() -> Tokenizer:
    tokenizer = Tokenizer(models.WordLevel({token: place for place, token in enumerate(VALUES)}, unk_token="[UNK]"))
    tokenizer.pre_tokenizer = pre_tokenizers.WhitespaceSplit()
    tokenizer.add_special_tokens(["[PAD]", "[CLS]", "[SEP]", "[UNK]"])
    tokenizer.post_processor = processors.TemplateProcessing(
        single="[CLS] $A [SEP]",
        pair="[CLS] $A [SEP] $B:1 [SEP]:1",
        special_tokens=[("[CLS]", 1), ("[SEP]", 2)],
    )
    return tokenizer


def _graph(
    head: Head, inputs: tuple[str, ...], element_type: int, batch: int | str, length: int | str
) -> onnx.ModelProto:
    def constant(name: str, value: object, dtype: type) -> onnx.TensorProto:
        return numpy_helper.from_array(np.array(value, dtype=dtype), name)

    constants = [
        constant("values", list(VALUES.values()), np.float32),
        constant("zero", 0, np.int64),
        constant("one", 1, np.int64),
        constant("one_f", 1, np.float32),
        constant("axis", [1], np.int64),
        constant("zero_f", 0, np.float32),
        constant("last", [2], np.int64),
    ]
    nodes = [
        helper.make_node("Gather", ["values", "input_ids"], ["value"]),
        helper.make_node("Shape", ["input_ids"], ["shape"]),
        helper.make_node("Gather", ["shape", "one"], ["tokens"]),
        helper.make_node("Add", ["tokens", "one"], ["end"]),
        helper.make_node("Range", ["one", "end", "one"], ["positions"]),
        helper.make_node("Cast", ["positions"], ["position"], to=TensorProto.FLOAT),
        helper.make_node("Mul", ["value", "position"], ["placed"]),
    ]
    result = "placed"
    if "token_type_ids" in inputs:
        nodes += [
            helper.make_node("Cast", ["token_type_ids"], ["types"], to=TensorProto.FLOAT),
            helper.make_node("Add", ["types", "one_f"], ["factor"]),
            helper.make_node("Mul", [result, "factor"], ["typed"]),
        ]
        result = "typed"
    if "attention_mask" in inputs:
        nodes += [
            helper.make_node("Cast", ["attention_mask"], ["seen"], to=TensorProto.BOOL),
            helper.make_node("Where", ["seen", result, "zero_f"], ["masked"]),
        ]
        result = "masked"
    nodes.append(helper.make_node("ReduceSum", [result, "axis"], ["total"], keepdims=1))
    if head == "column":
        nodes.append(helper.make_node("Identity", ["total"], ["logits"]))
        shape: list[int | str] = [batch, 1]
    elif head == "flat":
        nodes.append(helper.make_node("Squeeze", ["total", "axis"], ["logits"]))
        shape = [batch]
    elif head == "two":  # z0 = -total, z1 = total: the score by hand is 2 * total
        nodes.append(helper.make_node("Neg", ["total"], ["minus"]))
        nodes.append(helper.make_node("Concat", ["minus", "total"], ["logits"], axis=1))
        shape = [batch, 2]
    elif head == "three":  # z = total, 0, -total
        nodes.append(helper.make_node("Neg", ["total"], ["minus"]))
        nodes.append(helper.make_node("Mul", ["total", "zero_f"], ["nothing"]))
        nodes.append(helper.make_node("Concat", ["total", "nothing", "minus"], ["logits"], axis=1))
        shape = [batch, 3]
    else:
        nodes.append(helper.make_node("Unsqueeze", [result, "last"], ["last_hidden_state"]))
        shape = [batch, length, 1]
    output = "last_hidden_state" if head == "per_token" else "logits"
    graph = helper.make_graph(
        nodes,
        "toy",
        [helper.make_tensor_value_info(name, element_type, [batch, length]) for name in inputs],
        [helper.make_tensor_value_info(output, TensorProto.FLOAT, shape)],
        constants,
    )
    model = helper.make_model(graph, opset_imports=[helper.make_opsetid("", 17)])
    model.ir_version = 9
    onnx.checker.check_model(model)
    return model
