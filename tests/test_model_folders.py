"""Folders that people have: whatever their files say, a model gives its own scores, or an error that says why not."""

from __future__ import annotations

import json
import re
import shutil
from collections.abc import Callable
from pathlib import Path
from typing import Any

import numpy as np
import onnx
import pytest
from onnx import TensorProto, helper, numpy_helper
from tokenizers import Tokenizer

from onnx_rerank_integrations import TextCrossEncoder
from onnx_rerank_integrations.core.checks import PROMPT_NAMES
from onnx_rerank_integrations.core.errors import (
    InputValueError,
    InvalidModelError,
    ModelNotFoundError,
    UnsupportedModelError,
)
from onnx_rerank_integrations.core.model import variants
from onnx_rerank_integrations.core.model.config import PROMPT_FAMILIES, first_position, read_kind
from onnx_rerank_integrations.core.model.files import locate
from onnx_rerank_integrations.core.scoring import logits_of, relevant_label, units_of
from onnx_rerank_integrations.core.tokens.auto import TokenizerSettings
from onnx_rerank_integrations.core.tokens.pairs import PairTokenizer
from onnx_rerank_integrations.core.tokens.prompts import FAMILIES, prompt_of_chat_template, split_template
from tests.parity.fixtures import folder
from tests.toy import VALUES, make_toy, toy_score, toy_tokenizer

QUERY = "what do bees eat in winter"
TEXTS = ["Bees live on stored honey.", "A hive stands in the sun, out of the wind.", "Wasps are not bees"]


def changed(name: str, place: Path, **files: Callable[[dict[str, Any]], Any] | dict[str, Any]) -> Path:
    """A copy of a parity fixture in which some JSON files say something else; named by their stems."""
    target = place / name
    shutil.copytree(folder(name), target)
    for stem, change in files.items():
        path = target / f"{stem}.json"
        content = json.loads(path.read_text(encoding="utf-8"))
        if callable(change):
            change(content)
        else:
            content.update(change)
        path.write_text(json.dumps(content), encoding="utf-8")
    return target


def scored(place: Path, **options: Any) -> list[float]:
    return TextCrossEncoder(place, optimize="off", **options).rerank(QUERY, TEXTS)


def same_scores(name: str, place: Path, **options: Any) -> None:
    np.testing.assert_allclose(scored(place, **options), scored(folder(name), **options), rtol=0, atol=1e-5)


# --- the tokenizer's files ------------------------------------------------------------------------------------------


@pytest.mark.parametrize(
    "name", ["bert", "distilbert", "electra", "roberta", "jina-bert", "xlm-roberta", "gte", "deberta-v2", "modernbert"]
)
def test_a_missing_pair_template_is_the_models_own(name: str, tmp_path: Path) -> None:
    options: dict[str, Any] = {} if name != "bert-3-labels" else {"label": 1}
    same_scores(name, changed(name, tmp_path, tokenizer=lambda content: content.update(post_processor=None)), **options)


@pytest.mark.parametrize("name", ["bert", "xlm-roberta"])
def test_a_missing_pair_template_that_nobody_knows_is_an_error(name: str, tmp_path: Path) -> None:
    place = changed(
        name,
        tmp_path,
        tokenizer=lambda content: content.update(post_processor=None),
        tokenizer_config={"tokenizer_class": "PreTrainedTokenizerFast"},
        config={"model_type": "house"},
    )
    with pytest.raises(UnsupportedModelError, match="no pair template"):
        TextCrossEncoder(place)


@pytest.mark.parametrize("leftover", [{"max_length": 16}, {"max_length": 128, "stride": 0}, {"max_length": None}])
@pytest.mark.parametrize("name", ["bert", "modernbert", "xlm-roberta"])
def test_the_length_of_a_tokenizers_last_call_is_no_limit(name: str, leftover: dict[str, Any], tmp_path: Path) -> None:
    place = changed(name, tmp_path, tokenizer_config=leftover)

    assert TextCrossEncoder(place).max_length == TextCrossEncoder(folder(name)).max_length
    same_scores(name, place)


def test_sides_are_those_of_the_config_else_of_what_the_tokenizer_file_stores(tmp_path: Path) -> None:
    tokenizer = toy_tokenizer()
    tokenizer.enable_truncation(5, direction="left")
    tokenizer.enable_padding(direction="left", pad_id=3, pad_token="[UNK]")
    tokenizer.save(str(tmp_path / "tokenizer.json"))

    def made(**config: Any) -> PairTokenizer:
        settings = TokenizerSettings(config=config)
        return PairTokenizer(tmp_path / "tokenizer.json", max_length=7, settings=settings)

    cut = [("a", "b c d e f")]
    assert (made().padding_side, made().pad_id) == ("left", 3)
    assert made().encode(cut)[0].ids[3:-1].tolist() == [VALUE_ID["d"], VALUE_ID["e"], VALUE_ID["f"]]
    right = made(truncation_side="right", padding_side="right", pad_token="[PAD]")
    assert (right.padding_side, right.pad_id) == ("right", 0)
    assert right.encode(cut)[0].ids[3:-1].tolist() == [VALUE_ID["b"], VALUE_ID["c"], VALUE_ID["d"]]
    with pytest.raises(InvalidModelError, match="padding_side='top'"):
        made(padding_side="top")


VALUE_ID = {token: place for place, token in enumerate(VALUES)}


@pytest.mark.parametrize(
    ("name", "values"),
    [
        ("bert", {"do_lower_case": "yes"}),
        ("roberta", {"add_prefix_space": 1}),
        ("deberta-v2", {"split_by_punct": "no"}),
    ],
)
def test_a_tokenizers_flag_of_another_type_is_named(name: str, values: dict[str, Any], tmp_path: Path) -> None:
    with pytest.raises(InvalidModelError, match=next(iter(values))):
        TextCrossEncoder(changed(name, tmp_path, tokenizer_config=values))


# --- what is fed beside the tokens ----------------------------------------------------------------------------------


def with_positions_as_an_input(name: str, place: Path) -> Path:
    """A fixture whose graph is given its positions."""
    target = place / name
    shutil.copytree(folder(name), target)
    model = onnx.load(folder(name) / "model.onnx")
    for node in model.graph.node:
        if node.op_type == "Gather" and "position_embeddings" in node.input[0]:
            node.input[1] = "position_ids"
    shape = ["batch_size", "sequence_length"]
    model.graph.input.append(helper.make_tensor_value_info("position_ids", TensorProto.INT64, shape))
    onnx.save(model, target / "model.onnx")
    return target


@pytest.mark.parametrize("name", ["bert", "electra", "distilbert", "roberta", "xlm-roberta"])
def test_positions_begin_where_the_model_type_has_them(name: str, tmp_path: Path) -> None:
    same_scores(name, with_positions_as_an_input(name, tmp_path))


@pytest.mark.parametrize(
    ("config", "expected"),
    [
        ({"model_type": "roberta", "pad_token_id": 1}, 2),
        ({"model_type": "camembert", "pad_token_id": 5}, 6),
        ({"model_type": "longformer"}, 2),
        ({"model_type": "mpnet", "pad_token_id": 0}, 2),
        ({"model_type": "albert", "pad_token_id": 3}, 0),
    ],
)
def test_the_first_position_is_that_of_transformers(config: dict[str, Any], expected: int) -> None:
    assert first_position(config) == expected


def test_positions_of_an_unknown_model_type_are_an_error(tmp_path: Path) -> None:
    place = with_positions_as_an_input("xlm-roberta", tmp_path)
    (place / "config.json").write_text("{}")

    with pytest.raises(UnsupportedModelError, match="position_ids"):
        TextCrossEncoder(place)


@pytest.mark.parametrize(
    "tokenizer_config", [{"pad_token": None}, {"pad_token": "<|im_end|>"}, {"padding_side": "right"}]
)
def test_a_decoders_rows_are_padded_as_its_head_finds_their_end(tokenizer_config: Any, tmp_path: Path) -> None:
    place = changed("qwen3-seq-cls", tmp_path, tokenizer_config=tokenizer_config)
    files = locate(place)
    assert TextCrossEncoder(place).load()._tokenizer.pad_id == files.config["pad_token_id"]
    same_scores("qwen3-seq-cls", place)


def last_position_model() -> onnx.ModelProto:
    """The sum of a row's values, read at its last position, padding or not."""
    constants = [
        numpy_helper.from_array(np.array(value, dtype=dtype), name)
        for name, value, dtype in (
            ("values", list(VALUES.values()), np.float32),
            ("axis", [1], np.int64),
            ("one", 1, np.int64),
            ("start", [-1], np.int64),
            ("end", [2**62], np.int64),
        )
    ]
    nodes = [
        helper.make_node("Gather", ["values", "input_ids"], ["value"]),
        helper.make_node("Cast", ["attention_mask"], ["seen"], to=TensorProto.FLOAT),
        helper.make_node("Mul", ["value", "seen"], ["masked"]),
        helper.make_node("CumSum", ["masked", "one"], ["sums"]),
        helper.make_node("Mul", ["sums", "seen"], ["hidden"]),
        helper.make_node("Slice", ["hidden", "start", "end", "axis"], ["logits"]),
    ]
    inputs = [helper.make_tensor_value_info(n, TensorProto.INT64, ["b", "t"]) for n in ("input_ids", "attention_mask")]
    outputs = [helper.make_tensor_value_info("logits", TensorProto.FLOAT, ["b", 1])]
    graph = helper.make_graph(nodes, "last", inputs, outputs, constants)
    return helper.make_model(graph, opset_imports=[helper.make_opsetid("", 17)], ir_version=9)


@pytest.mark.parametrize("stated", [{}, {"padding_side": "right"}, {"padding_side": "left"}])
def test_a_head_at_the_last_position_reads_rows_padded_on_the_left(
    stated: dict[str, Any], tmp_path: Path, caplog: pytest.LogCaptureFixture
) -> None:
    place = make_toy(tmp_path, config={"model_type": "llama", "pad_token_id": None}, tokenizer_config=stated)
    onnx.save(last_position_model(), place / "model.onnx")
    encoder = TextCrossEncoder(place, threads=1)
    texts = ["a b c d e f g h", "a", "z " * 12]

    assert encoder.rerank("q", texts) == [encoder.rerank("q", [text])[0] for text in texts]
    assert not caplog.records
    assert encoder.load().batch_limit is None


def test_a_graph_without_a_mask_runs_pair_by_pair_with_a_warning(
    tmp_path: Path, caplog: pytest.LogCaptureFixture
) -> None:
    encoder = TextCrossEncoder(make_toy(tmp_path, inputs=("input_ids", "token_type_ids")), threads=1)
    texts = ["b", "c d", "e f g"]

    assert encoder.rerank("q", texts) == [toy_score("q", text) for text in texts]
    [told] = caplog.messages
    assert "depends on what else is in its batch" in told


@pytest.mark.parametrize(
    ("nodes", "message"),
    [
        (["RandomUniformLike", "Add"], "another score each time"),
        (["ReduceMean", "Sub"], "every pair that is run alone the same score, 0"),
        (["Softmax"], "every pair that is run alone the same score"),
    ],
)
def test_scores_that_a_pair_alone_does_not_have_are_refused(nodes: list[str], message: str, tmp_path: Path) -> None:
    chain = {
        "Softmax": [helper.make_node("Softmax", ["small"], ["result"], axis=0)],
        "ReduceMean": [
            helper.make_node("ReduceMean", ["small"], ["mean"], axes=[0], keepdims=1),
            helper.make_node("Sub", ["small", "mean"], ["result"]),
        ],
        "RandomUniformLike": [
            helper.make_node("RandomUniformLike", ["small"], ["noise"], seed=1.0),
            helper.make_node("Add", ["small", "noise"], ["result"]),
        ],
    }[nodes[0]]
    with pytest.raises(UnsupportedModelError, match=rf"model.onnx gives .*{message}(.|\n)*evaluation mode"):
        TextCrossEncoder(with_head(tmp_path, *chain, shape=["batch", 1]))


def test_a_sound_graph_is_batched_without_a_word(tmp_path: Path, caplog: pytest.LogCaptureFixture) -> None:
    assert TextCrossEncoder(make_toy(tmp_path)).load().batch_limit is None
    assert not caplog.records


# --- what comes out -------------------------------------------------------------------------------------------------


def with_head(place: Path, *nodes: onnx.NodeProto, shape: list[Any], toy: str = "column", **config: Any) -> Path:
    """The toy, whose score is first made small, then goes through some nodes from "small" to "result"."""
    make_toy(place, head=toy, config=config)  # type: ignore[arg-type]
    model = onnx.load(place / "model.onnx")
    model.graph.initializer.append(numpy_helper.from_array(np.array(0.01, dtype=np.float32), "hundredth"))
    model.graph.initializer.append(numpy_helper.from_array(np.array([1], dtype=np.int64), "second"))
    model.graph.initializer.append(numpy_helper.from_array(np.array(1, dtype=np.float32), "unity"))
    model.graph.node.extend([helper.make_node("Mul", ["logits", "hundredth"], ["small"]), *nodes])
    del model.graph.output[:]
    model.graph.output.append(helper.make_tensor_value_info("result", TensorProto.FLOAT, shape))
    onnx.save(model, place / "model.onnx")
    return place


HEADS: dict[str, tuple[list[onnx.NodeProto], list[Any], str]] = {
    "its own sigmoid": ([helper.make_node("Sigmoid", ["small"], ["result"])], ["batch", 1], "column"),
    "a sigmoid, reshaped": (
        [helper.make_node("Sigmoid", ["small"], ["p"]), helper.make_node("Squeeze", ["p", "second"], ["result"])],
        ["batch"],
        "column",
    ),
    "a sigmoid, clipped": (
        [helper.make_node("Sigmoid", ["small"], ["p"]), helper.make_node("Clip", ["p"], ["result"])],
        ["batch", 1],
        "column",
    ),
    "a sigmoid, spelled out": (
        [
            helper.make_node("Neg", ["small"], ["n"]),
            helper.make_node("Exp", ["n"], ["e"]),
            helper.make_node("Add", ["e", "unity"], ["sum"]),
            helper.make_node("Div", ["unity", "sum"], ["result"]),
        ],
        ["batch", 1],
        "column",
    ),
    "a sigmoid, as a reciprocal": (
        [
            helper.make_node("Neg", ["small"], ["n"]),
            helper.make_node("Exp", ["n"], ["e"]),
            helper.make_node("Add", ["unity", "e"], ["sum"]),
            helper.make_node("Reciprocal", ["sum"], ["p"]),
            helper.make_node("Flatten", ["p"], ["result"]),
        ],
        ["batch", 1],
        "column",
    ),
    "two axes of one": ([helper.make_node("Unsqueeze", ["small", "second"], ["result"])], ["batch", 1, 1], "column"),
    "no axis of one": ([helper.make_node("Squeeze", ["small", "second"], ["result"])], ["batch"], "column"),
}


@pytest.mark.parametrize("head", HEADS)
def test_a_heads_units_and_axes_give_back_logits(head: str, tmp_path: Path) -> None:
    nodes, shape, toy = HEADS[head]
    encoder = TextCrossEncoder(with_head(tmp_path, *nodes, shape=shape, toy=toy))
    texts = ["a", "b c", "d e f", "y z"]

    expected = [toy_score("q", text) / 100 for text in texts]
    np.testing.assert_allclose(encoder.rerank("q", texts), expected, rtol=1e-3)
    assert encoder.rerank("q", texts, activation="sigmoid") == pytest.approx([1 / (1 + np.exp(-x)) for x in expected])


def test_a_hard_sigmoid_is_the_score_between_0_and_1(tmp_path: Path) -> None:
    node = helper.make_node("HardSigmoid", ["small"], ["result"], alpha=0.01, beta=0.5)
    encoder = TextCrossEncoder(with_head(tmp_path, node, shape=["batch", 1]))
    texts = ["a", "b c", "y z"]

    expected = [0.5 + 0.01 * toy_score("q", text) / 100 for text in texts]
    assert encoder.rerank("q", texts, activation="sigmoid") == pytest.approx(expected)


def test_a_cosine_that_ends_in_a_division_is_no_sigmoid(tmp_path: Path) -> None:
    division = [
        helper.make_node("Abs", ["small"], ["size"]),
        helper.make_node("Add", ["size", "unity"], ["sum"]),
        helper.make_node("Div", ["size", "sum"], ["result"]),
    ]
    encoder = TextCrossEncoder(with_head(tmp_path, *division, shape=["batch", 1]))

    size = abs(toy_score("q", "b c")) / 100
    assert encoder.rerank("q", ["b c"]) == pytest.approx([size / (size + 1)])


@pytest.mark.parametrize("nodes", [["Softmax"], ["Exp", "ReduceSum", "Div"]])
def test_a_softmax_gives_back_the_difference_of_its_logits(nodes: list[str], tmp_path: Path) -> None:
    spelled_out = [
        helper.make_node("Exp", ["small"], ["e"]),
        helper.make_node("ReduceSum", ["e", "second"], ["sum"], keepdims=1),
        helper.make_node("Div", ["e", "sum"], ["result"]),
    ]
    parts = [helper.make_node("Softmax", ["small"], ["result"], axis=1)] if len(nodes) == 1 else spelled_out
    encoder = TextCrossEncoder(with_head(tmp_path, *parts, shape=["batch", 2], toy="two", num_labels=2))

    assert encoder.rerank("q", ["a", "y z"]) == pytest.approx([2 * toy_score("q", t) / 100 for t in ("a", "y z")])


def test_probabilities_that_were_rounded_give_finite_logits() -> None:
    column = np.array([[0.0], [1.0], [0.5]], dtype=np.float32)

    assert units_of("Sigmoid", column) == "sigmoid"
    assert units_of("Add", column) == "logits"
    assert units_of("Sigmoid", column * 2) == "logits"
    assert units_of("Sigmoid", np.array([[np.nan], [0.5]])) == "sigmoid"
    assert units_of("Sigmoid", np.array([[np.nan]])) == "logits"
    assert np.isfinite(logits_of(column, "sigmoid")).all()
    assert logits_of(column, "sigmoid")[2] == 0
    assert units_of("", np.array([[0.25, 0.75], [0.5, 0.5]])) == "softmax"
    assert np.isfinite(logits_of(np.array([[0.0, 1.0]], dtype=np.float16), "softmax")).all()


@pytest.mark.parametrize(
    ("names", "expected"),
    [
        (["irrelevant", "relevant"], 1),
        (["relevant", "irrelevant"], 0),
        (["not_relevant", "REL"], 1),
        (["entailment", "not_entailment"], 0),
        (["duplicate", "not_duplicate"], 0),
        (["no", "yes"], 1),
        (["POSITIVE", "NEGATIVE"], 0),
        (["LABEL_0", "LABEL_1"], 1),
        (["LABEL_1", "LABEL_0"], 0),
        (["0", "1"], 1),
        (["contradiction", "entailment"], 1),
        (None, 1),
    ],
)
def test_the_label_that_means_relevant_is_read_from_its_name(names: list[str] | None, expected: int) -> None:
    config: dict[str, Any] = {} if names is None else {"id2label": {str(i): name for i, name in enumerate(names)}}
    assert relevant_label(2, None, config) == expected
    if names is not None:
        assert relevant_label(2, None, {"id2label": names}) == expected
        assert relevant_label(2, None, {"label2id": {name: i for i, name in enumerate(names)}}) == expected


@pytest.mark.parametrize("names", [["cat", "dog"], ["relevant", "related"], ["bad", "wrong"]])
def test_two_labels_whose_names_dont_tell_are_asked_for(names: list[str]) -> None:
    config = {"id2label": dict(enumerate(names))}
    with pytest.raises(UnsupportedModelError, match=rf"nothing says which.*\n.*label='{names[1]}'"):
        relevant_label(2, None, config)
    assert relevant_label(2, names[0], config) == 0


@pytest.mark.parametrize("names", [["LABEL_0"], ["no", "maybe", "yes"], ["a", "b", "c", "d", "e"]])
@pytest.mark.parametrize("columns", [2, 4])
def test_labels_that_are_more_or_fewer_than_the_scores_are_told(names: list[str], columns: int) -> None:
    for config in ({"id2label": dict(enumerate(names))}, {"label2id": {name: i for i, name in enumerate(names)}}):
        with pytest.raises(
            UnsupportedModelError, match=rf"gives {columns} scores .* has names for {len(names)}: {names[0]}"
        ):
            relevant_label(columns, None, config)
        assert relevant_label(columns, 1, config) == 1
        assert relevant_label(1, None, config) == 0


def test_where_a_pair_may_have_several_labels_each_is_a_logit_by_itself(tmp_path: Path) -> None:
    several = {"problem_type": "multi_label_classification", "id2label": {"0": "spam", "1": "on topic", "2": "rude"}}
    encoder = TextCrossEncoder(make_toy(tmp_path, head="three", config=several), label="spam")

    assert encoder.rerank("q", ["a", "b c"]) == pytest.approx([toy_score("q", text) for text in ("a", "b c")])


@pytest.mark.parametrize("other", ["embeddings", "pooler_output", "loss"])
def test_the_score_is_found_beside_what_else_a_graph_gives(other: str, tmp_path: Path) -> None:
    place = make_toy(tmp_path)
    model = onnx.load(place / "model.onnx")
    wide = np.ones((1, 8), dtype=np.float32)
    model.graph.initializer.append(numpy_helper.from_array(wide, "wide"))
    vector = helper.make_node("MatMul", ["logits", "wide"], [other])
    model.graph.node.extend([vector, helper.make_node("Identity", ["logits"], ["rank_score"])])
    if other == "loss":
        model.graph.node[-2].CopyFrom(helper.make_node("ReduceMean", ["logits"], [other], keepdims=0))
    del model.graph.output[:]
    shapes: list[tuple[str, list[Any]]] = [
        (other, [] if other == "loss" else ["batch", 8]),
        ("rank_score", ["batch", 1]),
    ]
    model.graph.output.extend(helper.make_tensor_value_info(name, TensorProto.FLOAT, shape) for name, shape in shapes)
    onnx.save(model, place / "model.onnx")

    assert TextCrossEncoder(place).rerank("q", ["a", "b c"]) == [toy_score("q", text) for text in ("a", "b c")]


@pytest.mark.parametrize("label", [None, 5])
@pytest.mark.parametrize("output", ["sentence_embedding", "embeddings", "463"])
def test_an_embedding_model_is_called_one_in_three_lines(output: str, label: int | None, tmp_path: Path) -> None:
    place = make_toy(tmp_path, config={"hidden_size": 48, "architectures": ["BertModel"]})
    model = onnx.load(place / "model.onnx")
    model.graph.initializer.append(numpy_helper.from_array(np.ones((1, 48), dtype=np.float32), "wide"))
    model.graph.node.append(helper.make_node("MatMul", ["logits", "wide"], [output]))
    del model.graph.output[:]
    model.graph.output.append(helper.make_tensor_value_info("mask", TensorProto.INT64, ["batch", "length"]))
    model.graph.node.append(helper.make_node("Identity", ["attention_mask"], ["mask"]))
    model.graph.output.append(helper.make_tensor_value_info(output, TensorProto.FLOAT, ["batch", 48]))
    onnx.save(model, place / "model.onnx")

    with pytest.raises(UnsupportedModelError, match="is an embedding model") as caught:
        TextCrossEncoder(place, label=label)
    assert str(caught.value).count("\n") == 2
    assert "label=" not in str(caught.value)


# --- prompts --------------------------------------------------------------------------------------------------------


def read_text(place: Path, **options: Any) -> str:
    """What a model reads for a pair, as text."""
    [encoded] = TextCrossEncoder(place, **options).load().encode([("what is a bee", "an insect")])
    tokenizer = Tokenizer.from_file(str(place / "tokenizer.json"))
    return str(tokenizer.decode(encoded.ids.tolist(), skip_special_tokens=False))


OWN = "<|im_start|>system\n{{ query }}<|im_end|>\n<|im_start|>user\n{{document}}<|im_end|>\n<|im_start|>assistant\n"
LOOP = (
    "{%- for message in messages %}<|im_start|>{{ message['role'] }}\n"
    "{% if message['role'] == 'query' %}Q: {% elif message['role'] == 'document' %}D: {% endif %}"
    "{{ message['content'] }}<|im_end|>\n{% endfor %}{% if add_generation_prompt %}<|im_start|>assistant\n{% endif %}"
)


@pytest.mark.parametrize("where", ["config", "file", "list"])
def test_a_models_own_chat_template_is_its_prompt(where: str, tmp_path: Path) -> None:
    value = {"config": OWN, "file": "{{ messages }}", "list": [{"name": "default", "template": OWN}]}[where]
    place = changed("qwen3-reranker-plain", tmp_path, tokenizer_config={"chat_template": value})
    if where == "file":
        (place / "chat_template.jinja").write_text(OWN)

    assert read_text(place) == (
        "<|im_start|>system\nwhat is a bee<|im_end|>\n<|im_start|>user\nan insect<|im_end|>\n<|im_start|>assistant\n"
    )


def test_a_chat_template_of_statements_is_rendered(tmp_path: Path) -> None:
    pytest.importorskip("jinja2")
    place = changed("qwen3-seq-cls", tmp_path, tokenizer_config={"chat_template": LOOP})
    (place / "sentence_bert_config.json").write_text(
        json.dumps({"processing_kwargs": {"chat_template": {"add_generation_prompt": True}}})
    )

    assert read_text(place, instruction="Judge.") == (
        "<|im_start|>system\nJudge.<|im_end|>\n<|im_start|>query\nQ: what is a bee<|im_end|>\n"
        "<|im_start|>document\nD: an insect<|im_end|>\n<|im_start|>assistant\n"
    )


def test_a_chat_template_for_chats_is_no_prompt() -> None:
    for template in ("", "{% for m in messages %}{{ m.content }}{% endfor %}", "{{ last_query }}", "{{ query }}"):
        assert prompt_of_chat_template(template, None, None, {}) is None


def test_a_decoder_that_was_trained_on_plain_pairs_reads_plain_pairs(tmp_path: Path) -> None:
    config = {"model_type": "qwen2", "architectures": ["Qwen2ForSequenceClassification"]}
    assert read_text(changed("qwen3-seq-cls", tmp_path, config=config)) == "what is a beean insect"


def test_nemotrons_prompt_is_known_by_its_own_model_type(tmp_path: Path) -> None:
    config = {"model_type": "llama_bidirec", "architectures": ["LlamaBidirectionalForSequenceClassification"]}
    place = changed("qwen3-seq-cls", tmp_path, config=config)
    assert read_text(place) == "question:what is a bee \n \n passage:an insect"
    with pytest.raises(InputValueError, match="takes none"):
        TextCrossEncoder(place, instruction="x")


def test_a_language_model_whose_prompt_nothing_tells_is_refused_unless_one_is_given(tmp_path: Path) -> None:
    place = tmp_path / "house-model"
    changed("qwen3-reranker-plain", tmp_path).rename(place)

    with pytest.raises(UnsupportedModelError, match=r"how to ask it.*\n.*prompt="):
        TextCrossEncoder(place)
    same_scores("qwen3-reranker-plain", place, prompt="qwen3")
    with pytest.raises(UnsupportedModelError, match="which of its words"):
        TextCrossEncoder(place, prompt="{query} {document}")


def test_a_prompt_of_the_users_is_read_as_one_text(tmp_path: Path) -> None:
    place = folder("qwen3-seq-cls")
    for template in (
        "Query: {query}\nDocument: {document}\nRelevant:",
        "<Document> {document}\n<Query> {query} ??",
        "<|im_start|>user\n{instruction} {query}<|im_end|>\n{document}",
        "{query}{document}",
        "a {x} {{y}} {query} and then {document} end",
    ):
        instruction = {"instruction": "Find it:"} if "{instruction}" in template else {}
        [encoded] = TextCrossEncoder(place, prompt=template, **instruction).load().encode([(QUERY, TEXTS[0])])
        whole = template.replace("{query}", QUERY).replace("{document}", TEXTS[0]).replace("{instruction}", "Find it:")
        library = Tokenizer.from_file(str(place / "tokenizer.json"))
        library.no_truncation()
        library.no_padding()
        assert library.decode(encoded.ids.tolist(), skip_special_tokens=False) == whole
        if template != "{query}{document}":  # words of two texts that touch are one word to the library
            assert encoded.ids.tolist() == library.encode(whole, add_special_tokens=False).ids


def test_a_long_document_is_cut_inside_of_a_prompt(tmp_path: Path) -> None:
    encoder = TextCrossEncoder(
        folder("qwen3-seq-cls"), prompt="<Document> {document}\n<Query> {query} ??", max_length=60, warn_truncated=False
    )
    library = Tokenizer.from_file(str(folder("qwen3-seq-cls") / "tokenizer.json"))
    [encoded] = encoder.load().encode([(QUERY, "bees and honey " * 100)])

    text = library.decode(encoded.ids.tolist())
    assert encoded.length == 60
    assert encoded.truncated
    assert text.startswith("<Document> bees and honey")
    assert text.endswith(f"\n<Query> {QUERY} ??")


@pytest.mark.parametrize("name", ["bert", "roberta", "deberta-v2", "modernbert", "qwen3-seq-cls"])
def test_a_default_prompt_stands_before_each_query(name: str, tmp_path: Path) -> None:
    place = Path(shutil.copytree(folder(name), tmp_path / "m"))
    settings = {"prompts": {"web": "Find the answer to: ", "none": ""}, "default_prompt_name": "web"}
    (place / "config_sentence_transformers.json").write_text(json.dumps(settings))
    plain = TextCrossEncoder(shutil.copytree(folder(name), tmp_path / "plain"))
    texts = ["Bees live on stored honey.", "soup " * 80]

    asked = TextCrossEncoder(place).rerank("honey bee", texts)

    # as sentence-transformers 6.2 has it for folders with these configs
    assert asked == pytest.approx(plain.rerank("Find the answer to: honey bee", texts), abs=1e-5)
    assert TextCrossEncoder(place, prompt="none").rerank("honey bee", texts) != asked
    for other in (settings | {"default_prompt_name": "none"}, settings | {"default_prompt_name": None}):
        (place / "config_sentence_transformers.json").write_text(json.dumps(other))
        assert TextCrossEncoder(place).rerank("honey bee", texts) == plain.rerank("honey bee", texts)


@pytest.mark.parametrize("prompts", [{"query": "q: "}, {}, None, ["web"], {"web": 7}])
def test_a_default_prompt_that_is_not_there_is_an_error(prompts: Any, tmp_path: Path) -> None:
    place = make_toy(tmp_path)
    settings = {"prompts": prompts, "default_prompt_name": "web"}
    (place / "config_sentence_transformers.json").write_text(json.dumps(settings))
    with pytest.raises(InvalidModelError, match="default_prompt_name='web'"):
        TextCrossEncoder(place)


def test_no_prompt_is_a_choice_too() -> None:
    assert read_text(folder("qwen3-seq-cls"), prompt="none") == "what is a beean insect"


@pytest.mark.parametrize("prompt", ["", "{query}", "{document}", "{query} {query} {document}", "qwen2"])
def test_a_prompt_without_places_for_both_texts_is_refused(prompt: str) -> None:
    with pytest.raises(InputValueError, match="is no prompt"):
        TextCrossEncoder(folder("qwen3-seq-cls"), prompt=prompt)


def test_a_template_is_cut_at_special_tokens_and_line_breaks() -> None:
    prompt = split_template("<s>a {query}</s> {document} end</s>!", ["<s>", "</s>"])
    assert (prompt.before, prompt.query, prompt.between) == (("<s>",), "a {query}", ("</s>",))
    assert (prompt.document, prompt.document_tail, prompt.after) == (" {document}", " end", ("</s>!",))
    assert not prompt.framed


def logit_score(place: Path, **config: Any) -> Path:
    kinds = {"": "base.modules.transformer.Transformer", "1_LogitScore": "cross_encoder.modules.logit_score.LogitScore"}
    modules = [
        {"idx": i, "name": str(i), "path": path, "type": f"sentence_transformers.{kind}"}
        for i, (path, kind) in enumerate(kinds.items())
    ]
    (place / "modules.json").write_text(json.dumps(modules))
    (place / "1_LogitScore").mkdir()
    (place / "1_LogitScore" / "config.json").write_text(json.dumps(config))
    return place


def test_the_words_of_a_logit_score_module_are_read(tmp_path: Path) -> None:
    library = Tokenizer.from_file(str(folder("qwen3-reranker-plain") / "tokenizer.json"))
    yes, no = library.token_to_id("yes"), library.token_to_id("no")
    for name in ("both", "turned", "one"):
        (tmp_path / name).mkdir()
    both = logit_score(changed("qwen3-reranker-plain", tmp_path / "both"), true_token_id=yes, false_token_id=no)
    turned = logit_score(changed("qwen3-reranker-plain", tmp_path / "turned"), true_token_id=no, false_token_id=yes)
    one = logit_score(changed("qwen3-reranker-plain", tmp_path / "one"), true_token_id=yes, false_token_id=None)

    same_scores("qwen3-reranker-plain", both)
    assert scored(turned) == [-score for score in scored(both)]
    assert scored(one) not in (scored(both), scored(turned))


@pytest.mark.parametrize("config", [{}, {"true_token_id": "yes"}, {"true_token_id": 1, "false_token_id": True}])
def test_a_logit_score_module_without_ids_is_refused(config: dict[str, Any], tmp_path: Path) -> None:
    with pytest.raises(InvalidModelError, match="true_token_id"):
        TextCrossEncoder(logit_score(changed("qwen3-reranker-plain", tmp_path), **config))


@pytest.mark.parametrize(
    ("name", "architecture", "what"),
    [
        ("jina-reranker-v3", "Qwen3ForCausalLM", "whole list"),
        ("house", "JinaForRanking", "whole list"),
        ("rank_zephyr_7b", "MistralForCausalLM", "order"),
        ("castorini-duot5-base", "T5Model", "two documents"),
        ("answerai-colbert-small-v1", "HF_ColBERT", "vector per token"),
    ],
)
def test_rerankers_that_are_not_pointwise_are_refused_by_name(
    name: str, architecture: str, what: str, tmp_path: Path
) -> None:
    place = make_toy(tmp_path / name, config={"architectures": [architecture]})
    with pytest.raises(UnsupportedModelError, match=what):
        TextCrossEncoder(place)


# --- values of configs ----------------------------------------------------------------------------------------------


@pytest.mark.parametrize(
    ("config", "message"),
    [
        ({"max_position_embeddings": "512"}, "max_position_embeddings='512'"),
        ({"max_position_embeddings": True}, "max_position_embeddings=True"),
        ({"model_type": ["bert"]}, "model_type"),
        ({"architectures": {"BertModel": 1}}, "architectures"),
        ({"pad_token_id": "[PAD]"}, "pad_token_id"),
        ({"id2label": "relevant"}, "id2label='relevant'"),
        ({"id2label": 2}, "id2label=2"),
        ({"label2id": ["no", "yes"]}, "label2id"),
        ({"problem_type": ["regression"]}, "problem_type"),
        ({"tokenizer_class": {"name": "BertTokenizer"}}, "tokenizer_class"),
    ],
)
def test_a_configs_value_of_another_type_is_named(config: dict[str, Any], message: str, tmp_path: Path) -> None:
    with pytest.raises(InvalidModelError, match=message.replace("[", r"\[")):
        TextCrossEncoder(make_toy(tmp_path, config=config))


@pytest.mark.parametrize(
    ("values", "message"),
    [
        ({"tokenizer_class": 5}, "tokenizer_class=5"),
        ({"added_tokens_decoder": [{"content": "a"}]}, "added_tokens_decoder"),
        ({"added_tokens_decoder": {"5": {"content": 7}}}, "without its text"),
        ({"extra_special_tokens": "[NEW]"}, "extra_special_tokens='[NEW]'"),
        ({"additional_special_tokens": 7}, "additional_special_tokens=7"),
        ({"model_input_names": {"token_type_ids": 1}}, "model_input_names"),
        ({"chat_template": True}, "chat_template=True"),
        ({"pad_token": 0}, "pad_token=0"),
        ({"sep_token": ["[SEP]"]}, "sep_token"),
        ({"cls_token": {"content": None}}, "cls_token"),
        ({"padding_side": "middle"}, "padding_side='middle'"),
        ({"model_max_length": "long"}, "model_max_length='long'"),
    ],
)
def test_a_tokenizers_value_of_another_type_is_named(values: dict[str, Any], message: str, tmp_path: Path) -> None:
    with pytest.raises(InvalidModelError, match=re.escape(message)):
        TextCrossEncoder(make_toy(tmp_path, tokenizer_config=values))


@pytest.mark.parametrize(
    "config",
    [
        {"architectures": "BertForSequenceClassification"},
        {"architectures": None},
        {"pad_token_id": None},
        {"pad_token_id": -1},
        {"max_position_embeddings": 64.0},
        {"id2label": None, "label2id": None},
        {"sentence_transformers": "none"},
        {"num_labels": True},
    ],
)
def test_a_configs_value_that_people_write_is_understood(config: dict[str, Any], tmp_path: Path) -> None:
    encoder = TextCrossEncoder(make_toy(tmp_path, config=config))
    assert encoder.rerank("q", ["a b"]) == [toy_score("q", "a b")]
    assert encoder.rerank("q", ["a b"], activation="model")


def test_one_architecture_as_a_text_is_no_list_of_letters(tmp_path: Path) -> None:
    place = changed("qwen3-reranker-plain", tmp_path, config={"architectures": "Qwen3ForCausalLM"})
    same_scores("qwen3-reranker-plain", place)


@pytest.mark.parametrize(
    ("config", "bound"),
    [
        ({"model_type": "bert"}, True),
        ({"model_type": "bert", "position_embedding_type": "relative_key"}, True),
        ({"model_type": "deberta-v2", "relative_attention": True, "position_biased_input": True}, True),
        ({"model_type": "deberta-v2", "relative_attention": True, "position_biased_input": False}, False),
        ({"model_type": "bert", "position_embedding_type": "alibi"}, False),
        ({"model_type": "modernbert"}, False),
        ({"model_type": "new"}, False),
        ({"model_type": "house", "rope_theta": 10000.0}, False),
        ({"model_type": "house"}, True),
    ],
)
def test_a_stated_length_is_a_limit_only_where_positions_end(
    config: dict[str, Any], bound: bool, tmp_path: Path
) -> None:
    place = make_toy(tmp_path, config={"max_position_embeddings": 40, **config})

    assert TextCrossEncoder(place).max_length == 40
    if bound:
        with pytest.raises(InputValueError, match="more than the 40 positions"):
            TextCrossEncoder(place, max_length=100)
    else:
        assert TextCrossEncoder(place, max_length=100).max_length == 100


# --- where files lie ------------------------------------------------------------------------------------------------


@pytest.fixture
def toy(tmp_path: Path) -> Path:
    return make_toy(tmp_path / "toy", model_file="onnx/model.onnx")


def works(place: Path | str, **options: Any) -> bool:
    return TextCrossEncoder(place, **options).rerank("q", ["a b"]) == [toy_score("q", "a b")]


def test_configs_beside_the_graph_come_before_those_above(toy: Path) -> None:
    (toy / "onnx" / "tokenizer_config.json").write_text(json.dumps({"model_max_length": 32, "pad_token": "[PAD]"}))
    assert TextCrossEncoder(toy).max_length == 32
    (toy / "onnx" / "tokenizer_config.json").unlink()
    assert TextCrossEncoder(toy).max_length == 64


def test_the_folder_of_the_graphs_may_be_named(toy: Path) -> None:
    assert works(toy / "onnx")
    (toy / "model.onnx").write_bytes(b"another model of this folder")
    assert works(toy / "onnx")


def test_a_folder_of_the_hubs_cache_may_be_named(toy: Path, tmp_path: Path) -> None:
    commits = ["a" * 40, "b" * 40]
    repository = tmp_path / "hub" / "models--org--name"
    for commit in commits:
        shutil.copytree(toy, repository / "snapshots" / commit)

    with pytest.raises(ModelNotFoundError, match=f"2 commits.*{commits[0]}"):
        TextCrossEncoder(repository)
    (repository / "refs").mkdir()
    (repository / "refs" / "main").write_text(commits[1])
    for place in (repository, repository / "snapshots", repository / "snapshots" / commits[0], repository.parent):
        assert works(place)
    assert locate(str(repository)).folder.name == commits[1]
    shutil.copytree(repository, repository.with_name("models--org--other"))
    with pytest.raises(ModelNotFoundError, match=r"holds org/name, org/other.*\n.*cache_dir="):
        TextCrossEncoder(repository.parent)


@pytest.mark.parametrize("left", ["._model.onnx", ".ipynb_checkpoints/model-checkpoint.onnx", "__MACOSX/._model.onnx"])
def test_what_systems_leave_in_folders_is_no_model(left: str, tmp_path: Path) -> None:
    place = make_toy(tmp_path, model_file="reranker.onnx")
    (place / left).parent.mkdir(exist_ok=True)
    (place / left).write_bytes(b"\x00\x05\x16\x07")

    assert works(place)


def test_a_path_that_is_almost_right_names_what_it_should_have_been(toy: Path) -> None:
    with pytest.raises(ModelNotFoundError, match=rf"Did you mean '{toy}'"):
        TextCrossEncoder(f"{toy}s")
    with pytest.raises(InputValueError, match=f"is a file.*\n.*'{toy}'"):
        TextCrossEncoder(toy / "config.json")
    with pytest.raises(ModelNotFoundError, match=r"model_file='onnx/model.onnx'"):
        TextCrossEncoder(toy, model_file="model.onnx")


SHORT = {
    "fp16": "model_fp16",
    "q8": "model_quantized",
    "Q4": "model_q4",
    "q4f16": "model_q4f16",
    "bnb4": "model_bnb4",
    "uint8": "model_uint8",
    "O1": "model_O1",
    "o4": "model_O4",
    "qint8_avx512_vnni": "model_qint8_avx512_vnni",
    "quint8_avx2": "model_quint8_avx2",
    "qint8_arm64": "model_qint8_arm64",
}


@pytest.mark.parametrize("short", SHORT)
@pytest.mark.parametrize("inside", ["onnx/", ""])
def test_short_names_of_transformers_js_and_optimum_stand_for_files(short: str, inside: str) -> None:
    held = [f"{inside}model.onnx", f"{inside}{SHORT[short]}.onnx"]

    assert variants.choose("m", held, short) == held[1]
    with pytest.raises(ModelNotFoundError, match=rf"{short} \(.*Its ONNX files: {held[0]}"):
        variants.choose("m", held[:1], short)


def test_an_unknown_short_name_lists_those_there_are() -> None:
    with pytest.raises(InputValueError, match=r"fp16, q8, .*or a path"):
        variants.choose("m", ["model.onnx"], "q9")


def test_the_registrys_length_is_the_used_one(tmp_path: Path) -> None:
    place = make_toy(tmp_path, model_file="onnx/model.onnx", config={"max_position_embeddings": 9000})
    rows = [row for row in TextCrossEncoder.list_supported_models() if row["max_length"] and row["sources"]]
    for row in rows:
        files = locate(row["model"], specific_model_path=place, model_file="onnx/model.onnx")
        assert read_kind(files).max_length == row["max_length"]


def test_every_family_of_prompts_is_an_option_and_has_a_row() -> None:
    assert set(PROMPT_NAMES) == set(FAMILIES) == {family.name for family in PROMPT_FAMILIES}
