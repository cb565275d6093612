"""A strong model where no trained cross-encoder is at hand: `python -m benchmarks.pair_embeddings FOLDER OUT`.

Makes one graph of a BERT that was trained for sentence embeddings (mean pooling, such as all-MiniLM-L6-v2): it reads
query and document in one sequence, lets neither see the other, and scores a pair by the cosine of its two embeddings.
That costs what a cross-encoder of the same shape costs, and orders documents as the embeddings do.
"""

import argparse
import json
from pathlib import Path
from typing import Any

import torch
from tokenizers import Tokenizer, processors
from transformers import AutoModel

from benchmarks.models import OPSET

NAMES = ("input_ids", "attention_mask", "token_type_ids")
# So that the logits spread over a few units; an order doesn't depend on it.
SCALE = 20.0


class PairEmbeddings(torch.nn.Module):
    """Logits (B, 1) of token ids, mask and types (B, T): type 0 is the query, 1 the document."""

    def __init__(self, bert: Any) -> None:
        super().__init__()
        self.bert = bert

    def forward(self, ids: torch.Tensor, mask: torch.Tensor, types: torch.Tensor) -> torch.Tensor:
        query, document = mask * (1 - types), mask * types
        same_text = (types[:, :, None] == types[:, None, :]) & (mask[:, None, :] == 1)
        hidden = self.bert(
            input_ids=ids,
            # Each text counts its positions from 0, and both are of type 0, as alone.
            position_ids=(mask.cumsum(1) - query.sum(1, keepdim=True) * types - 1).clamp(min=0),
            token_type_ids=torch.zeros_like(types),
            attention_mask=torch.where(same_text, 0.0, torch.finfo(torch.float32).min)[:, None],
        ).last_hidden_state
        sums = [(hidden * part[:, :, None]).sum(1) for part in (query, document)]
        return SCALE * torch.nn.functional.cosine_similarity(*sums)[:, None]


def write(source: Path, out: Path) -> None:
    """The folder `out` with graph, tokenizer and configs, from a sentence-transformers folder."""
    (out / "onnx").mkdir(parents=True, exist_ok=True)
    tokenizer = Tokenizer.from_file(str(source / "tokenizer.json"))
    special = [(token, tokenizer.token_to_id(token)) for token in ("[CLS]", "[SEP]")]
    # Each text gets both special tokens, as alone.
    tokenizer.post_processor = processors.TemplateProcessing(
        single="[CLS] $A [SEP]", pair="[CLS] $A [SEP] [CLS]:1 $B:1 [SEP]:1", special_tokens=special
    )
    tokenizer.save(str(out / "tokenizer.json"))
    bert = AutoModel.from_pretrained(source, attn_implementation="eager").eval()
    settings = {
        "model_max_length": bert.config.max_position_embeddings,
        "tokenizer_class": "PreTrainedTokenizerFast",  # BERT's own would bring its own template
    }
    (out / "tokenizer_config.json").write_text(json.dumps(settings), encoding="utf-8")
    (out / "config.json").write_text(
        json.dumps(bert.config.to_dict() | {"id2label": {"0": "LABEL_0"}}), encoding="utf-8"
    )
    tokenizer.enable_padding()
    encodings = tokenizer.encode_batch([("a query", "a document"), ("another", "a rather longer one")])
    example = tuple(
        torch.tensor([getattr(encoding, name) for encoding in encodings])
        for name in ("ids", "attention_mask", "type_ids")
    )
    torch.onnx.export(
        PairEmbeddings(bert),
        example,
        str(out / "onnx" / "model.onnx"),
        input_names=list(NAMES),
        output_names=["logits"],
        dynamic_axes={name: {0: "batch", 1: "sequence"} for name in NAMES} | {"logits": {0: "batch"}},
        opset_version=OPSET,
        dynamo=False,
    )


def main() -> None:
    parser = argparse.ArgumentParser(prog="python -m benchmarks.pair_embeddings", description=__doc__)
    parser.add_argument("source", type=Path, metavar="FOLDER")
    parser.add_argument("out", type=Path, metavar="OUT")
    options = parser.parse_args()
    write(options.source, options.out)


if __name__ == "__main__":
    main()
