"""A cross-encoder as sentence-transformers builds one of modules, like cross-encoder/ettin-reranker-*.

The backbone alone is no reranker: its first token goes on through Dense, LayerNorm and Dense, whose weights lie in
folders of their own. Needs sentence-transformers.
"""

from __future__ import annotations

import shutil
import tempfile
from pathlib import Path

import torch
from sentence_transformers import CrossEncoder
from sentence_transformers.base.modules import Dense, Transformer
from sentence_transformers.sentence_transformer.modules import LayerNorm, Pooling
from torch import Tensor
from transformers import AutoModel, PreTrainedConfig, PreTrainedTokenizerBase


def cross_encoder(config: PreTrainedConfig, tokenizer: PreTrainedTokenizerBase) -> CrossEncoder:
    """Puts the modules together: backbone, first token, Dense with GELU and no bias, LayerNorm, Dense to one score."""
    with tempfile.TemporaryDirectory() as place:
        AutoModel.from_config(config).save_pretrained(place)
        tokenizer.save_pretrained(place)
        backbone = Transformer(place, model_kwargs={"attn_implementation": "eager"})
    size = config.hidden_size
    modules = [
        backbone,
        Pooling(size, pooling_mode="cls"),
        Dense(size, size, bias=False, activation_function=torch.nn.GELU()),
        LayerNorm(size),
        Dense(size, 1, activation_function=torch.nn.Identity(), module_output_name="scores"),
    ]
    return CrossEncoder(modules=modules, device="cpu", activation_fn=torch.nn.Identity())


def save_modules(encoder: CrossEncoder, target: Path) -> None:
    """Writes beside the tokenizer what sentence-transformers saves, but not the backbone's weights."""
    with tempfile.TemporaryDirectory() as place:
        encoder.save_pretrained(place, create_model_card=False)
        for left_out in ("model.safetensors", "tokenizer.json", "tokenizer_config.json"):
            Path(place, left_out).unlink()
        shutil.copytree(place, target, dirs_exist_ok=True)


def head(encoder: CrossEncoder, hidden: Tensor, attention_mask: Tensor) -> Tensor:
    """Gives the scores (B, 1) of the backbone's hidden states (B, T, size) by the modules after it."""
    features = {"token_embeddings": hidden, "attention_mask": attention_mask}
    for module in list(encoder)[1:]:
        features = module(features)
    return features["scores"]
