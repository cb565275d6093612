"""Makes the parity fixtures: tiny models with random weights, their tokenizers, and the logits PyTorch gives.

    python -m tests.parity.make               # all of them
    python -m tests.parity.make bert roberta  # these

Needs torch, transformers, sentence-transformers and onnx. `score` is all a live check needs: it builds the very same
PyTorch model again.
"""

from __future__ import annotations

import json
import platform
import sys
import warnings
from functools import partial
from importlib.metadata import version
from pathlib import Path
from typing import Any

import numpy as np
import onnx
import torch
import transformers
from torch import Tensor
from transformers import AutoConfig, AutoTokenizer, DynamicCache, PreTrainedTokenizerBase

from tests.parity.architectures import RECIPES
from tests.parity.fixtures import folder, session
from tests.parity.modular import cross_encoder, head, save_modules
from tests.parity.prompts import PROMPTS
from tests.parity.text import INSTRUCTION, PAIRS

OPSET = 17
TOLERANCE = 1e-4

Pair = tuple[str, str]


def build(name: str) -> tuple[torch.nn.Module, PreTrainedTokenizerBase]:
    """Builds the fixture's PyTorch model and tokenizer from its committed files and its seed.

    The tokenizer is read, not trained again, so nothing hangs on how a trainer breaks its ties.
    """
    recipe = RECIPES[name]
    tokenizer = AutoTokenizer.from_pretrained(folder(name))
    config = AutoConfig.from_pretrained(folder(name), attn_implementation="eager")
    if recipe.modular:
        model: torch.nn.Module = cross_encoder(config, tokenizer)
    elif recipe.model:
        model = recipe.model(config)
    else:
        model = getattr(transformers, config.architectures[0])(config)
    _fill(model, recipe.seed)
    return model.eval(), tokenizer


def _fill(model: torch.nn.Module, seed: int) -> None:
    """Gives every weight a random value, large enough that each token, type and position shows in the score.

    Only `numpy.random.RandomState` promises the same numbers in every version.
    """
    normal = np.random.RandomState(seed).standard_normal
    for module in model.modules():
        for name, parameter in module.named_parameters(recurse=False):
            noise = normal(tuple(parameter.shape)).astype(np.float32)
            if parameter.ndim == 1:
                value = 0.3 * noise + (1.0 if name == "weight" else 0.0)
            elif isinstance(module, torch.nn.Embedding):
                value = noise
            else:
                value = 2.0 * noise / np.sqrt(parameter.shape[1])
            with torch.no_grad():
                parameter.copy_(torch.from_numpy(np.asarray(value, dtype=np.float32)))


@torch.no_grad()
def score(name: str, pairs: list[Pair], instruction: str | None = None) -> list[list[float]]:
    """Gives PyTorch's logits, one row of labels per pair, one pair at a time and so without padding."""
    model, tokenizer = build(name)
    if RECIPES[name].modular:
        return model.predict(pairs, batch_size=1, show_progress_bar=False)[:, None].tolist()
    rows = (model(**encode(name, tokenizer, [pair], instruction)).logits for pair in pairs)
    return [_labels(name, tokenizer, row)[0].tolist() for row in rows]


def encode(
    name: str, tokenizer: PreTrainedTokenizerBase, pairs: list[Pair], instruction: str | None = None
) -> dict[str, Tensor]:
    """Tokenizes the pairs as the original of this model does it, padded to the longest."""
    recipe = RECIPES[name]
    if recipe.prompt:
        bare = partial(tokenizer.encode, add_special_tokens=False, verbose=False)
        ask = partial(PROMPTS[recipe.prompt], bare, instruction=instruction, max_length=recipe.max_length)
        asked = {"input_ids": [ask(query, document) for query, document in pairs]}
        return dict(tokenizer.pad(asked, padding_side="left", return_tensors="pt"))
    # Two lists, as sentence-transformers passes them, also for one pair: given ("query", "") alone, transformers takes
    # the empty document for none at all.
    queries, documents = map(list, zip(*pairs, strict=True))
    settings = {"truncation": "longest_first", "max_length": recipe.max_length, "padding": True, "return_tensors": "pt"}
    return dict(tokenizer(queries, documents, **settings))


def _labels(name: str, tokenizer: PreTrainedTokenizerBase, logits: Tensor) -> Tensor:
    """Gives (B, L) as it is; of a language model's (B, T, V) the answers' logits after the last token."""
    answers = RECIPES[name].answers
    return logits[:, -1, tokenizer.convert_tokens_to_ids(list(answers))] if answers else logits


def make(name: str) -> None:
    """Makes one fixture's folder, or makes it again around the tokenizer that is there.

    The trainers of `tokenizers` don't give the same result twice; remove the folder for a new tokenizer.
    """
    target = folder(name)
    recipe = RECIPES[name]
    if not target.exists():
        recipe.tokenizer().save_pretrained(target)
    recipe.config(AutoTokenizer.from_pretrained(target)).save_pretrained(target)
    if recipe.modular:
        save_modules(build(name)[0], target)
    export(name, target / "model.onnx")
    logits = score(name, PAIRS)
    difference = verify(name, logits)
    if difference > TOLERANCE:
        raise SystemExit(f"{name}: the exported graph is {difference:.1e} away from PyTorch")
    _write_scores(name, logits)
    size = sum(path.stat().st_size for path in target.rglob("*") if path.is_file())
    print(f"{name}: {size / 1000:.0f} kB, logits' std {np.std(logits):.2f}, graph within {difference:.0e} of PyTorch")


def export(name: str, path: Path) -> None:
    """Writes the ONNX graph: batch and sequence dynamic, as inputs what the tokenizer gives and the model uses."""
    model, tokenizer = build(name)
    result = "logits"
    if RECIPES[name].modular:
        model, result = model[0].model, "last_hidden_state"
    # Three tokens of past where there is one at all: a length of zero would be traced as a constant.
    example = _graph_inputs(name, encode(name, tokenizer, PAIRS[:2]), past_length=3)
    outputs = [result] + [key.replace("past_key_values", "present") for key in example if key.startswith("past")]
    with warnings.catch_warnings():
        # Traced, not torch.export: the new exporter starts at opset 18 and needs onnxscript.
        warnings.simplefilter("ignore")
        torch.onnx.export(
            _Graph(model, list(example), result).eval(),
            tuple(example.values()),
            str(path),
            input_names=list(example),
            output_names=outputs,
            dynamic_axes={key: _axes(name, key) for key in (*example, *outputs)},
            opset_version=OPSET,
            dynamo=False,
        )
    _shorten_names(path)


class _Graph(torch.nn.Module):
    """A model that takes its inputs in order and gives its result, then what is present, as an ONNX graph does."""

    def __init__(self, model: torch.nn.Module, inputs: list[str], result: str) -> None:
        super().__init__()
        self.model = model
        self.inputs = inputs
        self.result = result

    def forward(self, *tensors: Tensor) -> Tensor | tuple[Tensor, ...]:
        given = dict(zip(self.inputs, tensors, strict=True))
        past = [given.pop(name) for name in self.inputs if name.startswith("past_key_values")]
        if not past:
            return getattr(self.model(**given), self.result)
        cache = DynamicCache()
        for layer, (key, value) in enumerate(zip(past[::2], past[1::2], strict=True)):
            cache.update(key, value, layer)
        output = self.model(**given, past_key_values=cache, use_cache=True)
        return getattr(output, self.result), *(
            tensor for layer in cache.layers for tensor in (layer.keys, layer.values)
        )


def _graph_inputs(name: str, encoded: dict[str, Tensor], *, past_length: int = 0) -> dict[str, Tensor]:
    """Adds to the tokenizer's inputs those that only the graph asks for."""
    recipe = RECIPES[name]
    inputs = encoded | {key: torch.zeros_like(encoded["input_ids"]) for key in recipe.zeros}
    if recipe.position_ids:
        inputs["position_ids"] = (encoded["attention_mask"].cumsum(1) - 1).clamp(min=0)
    if recipe.past:
        config = AutoConfig.from_pretrained(folder(name))
        batch = len(encoded["input_ids"])
        seen = torch.ones(batch, past_length, dtype=torch.long)
        inputs["attention_mask"] = torch.cat([seen, encoded["attention_mask"]], dim=1)
        for layer in range(config.num_hidden_layers):
            for part in ("key", "value"):
                shape = (batch, config.num_key_value_heads, past_length, config.head_dim)
                inputs[f"past_key_values.{layer}.{part}"] = torch.zeros(shape)
    return inputs


def _axes(name: str, tensor: str) -> dict[int, str]:
    """Names the dynamic axes as optimum does."""
    recipe = RECIPES[name]
    total = "past_sequence_length + sequence_length" if recipe.past else "sequence_length"
    if tensor.startswith("past_key_values"):
        return {0: "batch_size", 2: "past_sequence_length"}
    if tensor.startswith("present"):
        return {0: "batch_size", 2: total}
    if tensor == "attention_mask":
        return {0: "batch_size", 1: total}
    if tensor == "logits" and recipe.answers is None:
        return {0: "batch_size"}
    return {0: "batch_size", 1: "sequence_length"}


def _shorten_names(path: Path) -> None:
    """Renames nodes and the values between them; the exporter's names are half of a small file."""
    model = onnx.load(path)
    graph = model.graph
    kept = {value.name for value in (*graph.input, *graph.output, *graph.initializer)}
    short: dict[str, str] = {name: name for name in kept | {""}}
    for number, node in enumerate(graph.node):
        node.name = f"n{number}"
        for names in (node.input, node.output):
            names[:] = [short.setdefault(name, f"v{len(short)}") for name in names]
    del graph.value_info[:]
    onnx.checker.check_model(model)
    onnx.save(model, path)


def verify(name: str, expected: list[list[float]]) -> float:
    """Gives the largest difference between the graph on one padded batch and PyTorch on single pairs."""
    tokenizer = AutoTokenizer.from_pretrained(folder(name))
    batch = _graph_inputs(name, encode(name, tokenizer, PAIRS))
    graph = session(name)
    feed = {tensor.name: batch[tensor.name].numpy() for tensor in graph.get_inputs()}
    result = torch.from_numpy(graph.run(None, feed)[0])
    if RECIPES[name].modular:
        with torch.no_grad():
            logits = head(build(name)[0], result, batch["attention_mask"])
    else:
        logits = _labels(name, tokenizer, result)
    return float((logits - torch.tensor(expected)).abs().max())


def _write_scores(name: str, logits: list[list[float]]) -> None:
    recipe = RECIPES[name]
    libraries = ["torch", "transformers", "tokenizers"] + ["sentence-transformers"] * recipe.modular
    report: dict[str, Any] = {
        "made_by": {library: version(library) for library in libraries}
        | {"python": platform.python_version(), "command": f"python -m tests.parity.make {name}"},
        "kind": "prompt" if recipe.prompt else "modules" if recipe.modular else "pair",
        "max_length": recipe.max_length,
        "pairs": PAIRS,
        "logits": logits,
    }
    if recipe.prompt:
        report["prompt"] = recipe.prompt
        report["instruction"] = {"text": INSTRUCTION, "logits": score(name, PAIRS, INSTRUCTION)}
    if recipe.answers:
        report["answers"] = recipe.answers
        report["scores"] = [yes - no for no, yes in logits]
    text = json.dumps(report, indent=1, ensure_ascii=False)
    (folder(name) / "scores.json").write_text(text + "\n", encoding="utf-8")


if __name__ == "__main__":
    for chosen in sys.argv[1:] or RECIPES:
        make(chosen)
