"""Makes the tiny classifiers that the tests rewrite: random weights, real exporters.

    python tests/graphs/make.py                                     # all but those of an older transformers
    python tests/graphs/make.py bert_transformers4_torchscript11    # with transformers 4.36.2 installed

Made with torch 2.13.0, transformers 5.23.0 (4.36.2 where the name says so), onnxscript 0.7.2, onnxruntime 1.32.0. Each
is a 2-layer encoder of width 32 with 4 heads, a vocabulary of 64 and 64 positions; the weights are spread wider than at
a usual start so that the scores depend visibly on every token.
"""

from __future__ import annotations

import sys
import warnings
from pathlib import Path

import onnx
import torch
import transformers

FOLDER = Path(__file__).parent
VOCABULARY, POSITIONS = 64, 64

# name: (architecture, exporter, opset, attention of transformers, half precision)
GRAPHS = {
    "bert_torchscript11": ("Bert", "torchscript", 11, "eager", False),
    "bert_torchscript14_sdpa": ("Bert", "torchscript", 14, "sdpa", False),
    "bert_torchscript17_fp16": ("Bert", "torchscript", 17, "sdpa", True),
    "bert_torchscript20": ("Bert", "torchscript", 20, "eager", False),
    "bert_dynamo18": ("Bert", "dynamo", 18, "eager", False),
    "bert_dynamo18_sdpa": ("Bert", "dynamo", 18, "sdpa", False),
    "electra_torchscript14": ("Electra", "torchscript", 14, "sdpa", False),
    "xlm_roberta_torchscript17": ("XLMRoberta", "torchscript", 17, "sdpa", False),
    "xlm_roberta_dynamo20": ("XLMRoberta", "dynamo", 20, "sdpa", False),
    "xlm_roberta_dynamo20_fp16": ("XLMRoberta", "dynamo", 20, "sdpa", True),
    "modernbert_torchscript17": ("ModernBert", "torchscript", 17, "sdpa", False),
    "deberta_torchscript14": ("DebertaV2", "torchscript", 14, "eager", False),
}
OLDER_TRANSFORMERS = {
    "bert_transformers4_torchscript11": ("Bert", "torchscript", 11, None, False),
    "xlm_roberta_transformers4_torchscript14": ("XLMRoberta", "torchscript", 14, None, False),
}
OPTIONS = {
    "Bert": {},
    "Electra": {"embedding_size": 32},
    "XLMRoberta": {"type_vocab_size": 1, "pad_token_id": 1, "bos_token_id": 0, "eos_token_id": 2},
    "ModernBert": {
        "local_attention": 16,
        "global_attn_every_n_layers": 1,
        "classifier_pooling": "cls",
        "pad_token_id": 0,
        "bos_token_id": 1,
        "eos_token_id": 2,
        "cls_token_id": 1,
        "sep_token_id": 2,
    },
    "DebertaV2": {
        "relative_attention": True,
        "position_buckets": 16,
        "norm_rel_ebd": "layer_norm",
        "share_att_key": True,
        "pos_att_type": ["p2c", "c2p"],
        "type_vocab_size": 0,
        "position_biased_input": False,
    },
}


class Logits(torch.nn.Module):
    """The classifier as a function of positional inputs."""

    def __init__(self, model: torch.nn.Module, names: list[str]) -> None:
        super().__init__()
        self.model, self.names = model, names

    def forward(self, *inputs: torch.Tensor) -> torch.Tensor:
        return self.model(**dict(zip(self.names, inputs, strict=True))).logits


def classifier(architecture: str, attention: str | None) -> torch.nn.Module:
    torch.manual_seed(0)
    config = getattr(transformers, f"{architecture}Config")(
        vocab_size=VOCABULARY,
        hidden_size=32,
        num_hidden_layers=2,
        num_attention_heads=4,
        intermediate_size=64,
        num_labels=1,
        max_position_embeddings=POSITIONS + 2 * (architecture == "XLMRoberta"),
        **OPTIONS[architecture],
        **({"attn_implementation": attention} if attention else {}),
    )
    model = getattr(transformers, f"{architecture}ForSequenceClassification")(config).eval()
    with torch.no_grad():
        for name, weight in model.named_parameters():
            if weight.ndim == 1:
                weight.add_(torch.randn_like(weight) * 0.1)
            else:
                weight.mul_(20 if "classifier" in name else 8)
    return model


def export(name: str, architecture: str, exporter: str, opset: int, attention: str | None, half: bool) -> Path:
    path = FOLDER / f"{name}.onnx"
    names = ["input_ids", "attention_mask"] + ["token_type_ids"] * (architecture in ("Bert", "Electra"))
    ids = torch.randint(3, VOCABULARY, (2, 9))
    mask = torch.ones_like(ids)
    mask[1, 6:] = 0
    inputs = (ids, mask, torch.zeros_like(ids))[: len(names)]
    model = Logits(classifier(architecture, attention), names).eval()
    axes = {0: "batch_size", 1: "sequence_length"}
    options = {"input_names": names, "output_names": ["logits"], "opset_version": opset}
    if exporter == "torchscript":
        dynamic = dict.fromkeys(names, axes) | {"logits": {0: "batch_size"}}
        torch.onnx.export(model, inputs, str(path), dynamo=False, dynamic_axes=dynamic, **options)
    else:
        free = torch.export.Dim.DYNAMIC
        shapes = (tuple({0: free, 1: free} for _ in names),)
        torch.onnx.export(
            model, inputs, str(path), dynamo=True, dynamic_shapes=shapes, external_data=False, verbose=False, **options
        )
    graph = onnx.load(path)
    if half:
        from onnxruntime.transformers.float16 import convert_float_to_float16

        graph = convert_float_to_float16(graph, keep_io_types=True, disable_shape_infer=True)
    for node in graph.graph.node:  # stack traces with this machine's paths
        node.ClearField("metadata_props")
        node.ClearField("doc_string")
    for value in (*graph.graph.value_info, *graph.graph.input, *graph.graph.output):
        value.ClearField("metadata_props")
    graph.ClearField("metadata_props")
    graph.graph.ClearField("metadata_props")
    onnx.save(graph, path)
    return path


if __name__ == "__main__":
    warnings.filterwarnings("ignore")
    for chosen in sys.argv[1:] or GRAPHS:
        written = export(chosen, *(GRAPHS | OLDER_TRANSFORMERS)[chosen])
        print(f"{written.name}: {written.stat().st_size / 1e3:.0f} kB")
