"""JinaBERT as jina-reranker-v1 has it, written for these fixtures: transformers 5 doesn't carry it.

BERT with three changes: no position embeddings but a bias on the attention that falls linearly with the distance, the
same to both sides (ALiBi, arXiv:2108.12409, symmetric as in arXiv:2310.19923); a gated GELU feed-forward layer; and so
no limit on the length but memory. It tests how a graph with such inputs is fed, not Jina's own weights or code.
"""

from __future__ import annotations

import torch
from torch import Tensor, nn
from transformers import BertConfig
from transformers.modeling_outputs import SequenceClassifierOutput


class JinaBertForSequenceClassification(nn.Module):
    """Embeddings, layers, a pooler over the first token, a classifier. Takes BERT's three inputs."""

    def __init__(self, config: BertConfig) -> None:
        super().__init__()
        self.words = nn.Embedding(config.vocab_size, config.hidden_size)
        self.token_types = nn.Embedding(config.type_vocab_size, config.hidden_size)
        self.norm = nn.LayerNorm(config.hidden_size, eps=config.layer_norm_eps)
        self.layers = nn.ModuleList(_Layer(config) for _ in range(config.num_hidden_layers))
        self.pooler = nn.Linear(config.hidden_size, config.hidden_size)
        self.classifier = nn.Linear(config.hidden_size, config.num_labels)
        self.heads = config.num_attention_heads

    def forward(
        self, input_ids: Tensor, attention_mask: Tensor, token_type_ids: Tensor | None = None
    ) -> SequenceClassifierOutput:
        if token_type_ids is None:
            token_type_ids = torch.zeros_like(input_ids)
        hidden = self.norm(self.words(input_ids) + self.token_types(token_type_ids))
        bias = self._distance_bias(input_ids) + _mask_bias(attention_mask)
        for layer in self.layers:
            hidden = layer(hidden, bias)
        return SequenceClassifierOutput(logits=self.classifier(torch.tanh(self.pooler(hidden[:, 0]))))

    def _distance_bias(self, input_ids: Tensor) -> Tensor:
        """Gives (1, heads, T, T): minus the distance times the head's slope, 2**(-8/heads) to 2**-8."""
        positions = torch.arange(input_ids.shape[1])
        distances = (positions[:, None] - positions[None, :]).abs().float()
        slopes = torch.tensor([2.0 ** (-8.0 * (head + 1) / self.heads) for head in range(self.heads)])
        return -slopes[None, :, None, None] * distances


class _Layer(nn.Module):
    def __init__(self, config: BertConfig) -> None:
        super().__init__()
        size, inner = config.hidden_size, config.intermediate_size
        self.heads = config.num_attention_heads
        self.query = nn.Linear(size, size)
        self.key = nn.Linear(size, size)
        self.value = nn.Linear(size, size)
        self.attention_output = nn.Linear(size, size)
        self.attention_norm = nn.LayerNorm(size, eps=config.layer_norm_eps)
        self.gated = nn.Linear(size, 2 * inner, bias=False)
        self.output = nn.Linear(inner, size)
        self.output_norm = nn.LayerNorm(size, eps=config.layer_norm_eps)

    def forward(self, hidden: Tensor, bias: Tensor) -> Tensor:
        query, key, value = (
            part(hidden).unflatten(-1, (self.heads, -1)).transpose(1, 2) for part in (self.query, self.key, self.value)
        )
        weights = (query @ key.transpose(2, 3) / query.shape[-1] ** 0.5 + bias).softmax(-1)
        attended = self.attention_output((weights @ value).transpose(1, 2).flatten(2))
        hidden = self.attention_norm(hidden + attended)
        gate, content = self.gated(hidden).chunk(2, dim=-1)
        return self.output_norm(hidden + self.output(nn.functional.gelu(gate) * content))


def _mask_bias(attention_mask: Tensor) -> Tensor:
    return (1.0 - attention_mask[:, None, None, :].float()) * torch.finfo(torch.float32).min
