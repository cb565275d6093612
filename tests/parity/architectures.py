"""What each fixture is: which tokenizer, which tiny configuration, which seed."""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import dataclass
from functools import partial
from typing import Any

from torch import nn
from transformers import (
    BertConfig,
    DebertaV2Config,
    DistilBertConfig,
    ElectraConfig,
    GteConfig,
    ModernBertConfig,
    PreTrainedConfig,
    PreTrainedTokenizerBase,
    Qwen2Config,
    Qwen3Config,
    RobertaConfig,
    XLMRobertaConfig,
)

from tests.parity import vocabulary
from tests.parity.jina_bert import JinaBertForSequenceClassification

MAX_LENGTH = 64
"""The longest pair an encoder takes, in tokens."""

PROMPT_LENGTH = 256
"""The longest pair a language model is asked about, in tokens; the prompt's own take about half of it."""

TINY = {"hidden_size": 32, "num_hidden_layers": 2, "num_attention_heads": 2, "intermediate_size": 64}


@dataclass(frozen=True, kw_only=True)
class Recipe:
    """One fixture.

    Attributes:
        tokenizer: Trains the tokenizer.
        config: Gives the configuration for that tokenizer; its ``architectures`` names the class in transformers.
        seed: Where the weights' random numbers start; chosen so that the logits differ clearly between pairs.
        model: Makes the model for that configuration where it isn't in transformers.
        zeros: Inputs of the graph that the tokenizer doesn't give and the model takes as zeros.
        prompt: The prompt in which the pair is asked, for models made from language models.
        answers: The tokens whose logits at the last position are the labels, where the model gives its vocabulary's.
        max_length: The longest pair it is scored with, in tokens.
        position_ids: Whether the graph takes positions.
        modular: Whether it is a cross-encoder of modules; the graph is then its backbone alone.
        past: Whether the graph takes the keys and values of earlier tokens, and gives them back.
    """

    tokenizer: Callable[[], PreTrainedTokenizerBase]
    config: Callable[[PreTrainedTokenizerBase], PreTrainedConfig]
    seed: int = 0
    model: Callable[[PreTrainedConfig], nn.Module] | None = None
    zeros: tuple[str, ...] = ()
    prompt: str | None = None
    answers: tuple[str, str] | None = None
    max_length: int = MAX_LENGTH
    position_ids: bool = False
    past: bool = False
    modular: bool = False


def _vocabulary(tokenizer: PreTrainedTokenizerBase) -> dict[str, int]:
    return {"vocab_size": len(tokenizer), "pad_token_id": tokenizer.pad_token_id}


def _bert(tokenizer: PreTrainedTokenizerBase, **head: Any) -> PreTrainedConfig:
    return BertConfig(
        architectures=["BertForSequenceClassification"],
        max_position_embeddings=MAX_LENGTH,
        **_vocabulary(tokenizer),
        **TINY,
        **head,
    )


def _bert_for_ranking(tokenizer: PreTrainedTokenizerBase) -> PreTrainedConfig:
    # As the ms-marco models say that their logits are to be left alone.
    return _bert(tokenizer, num_labels=1, sentence_transformers={"activation_fn": "torch.nn.modules.linear.Identity"})


def _bert_for_inference(tokenizer: PreTrainedTokenizerBase) -> PreTrainedConfig:
    """Three labels in the order of the nli-* cross-encoders."""
    labels = ["contradiction", "entailment", "neutral"]
    return _bert(tokenizer, id2label=dict(enumerate(labels)), label2id={label: i for i, label in enumerate(labels)})


def _roberta_facts(tokenizer: PreTrainedTokenizerBase) -> dict[str, int]:
    return {
        # Positions are counted from padding id + 1, so the first two are never used.
        "max_position_embeddings": MAX_LENGTH + 2,
        "type_vocab_size": 1,
        "bos_token_id": tokenizer.bos_token_id,
        "eos_token_id": tokenizer.eos_token_id,
        "num_labels": 1,
        **_vocabulary(tokenizer),
    }


def _roberta(tokenizer: PreTrainedTokenizerBase) -> PreTrainedConfig:
    return RobertaConfig(architectures=["RobertaForSequenceClassification"], **_roberta_facts(tokenizer), **TINY)


def _xlm_roberta(tokenizer: PreTrainedTokenizerBase) -> PreTrainedConfig:
    return XLMRobertaConfig(architectures=["XLMRobertaForSequenceClassification"], **_roberta_facts(tokenizer), **TINY)


def _electra(tokenizer: PreTrainedTokenizerBase) -> PreTrainedConfig:
    return ElectraConfig(
        architectures=["ElectraForSequenceClassification"],
        embedding_size=16,
        max_position_embeddings=MAX_LENGTH,
        num_labels=1,
        **_vocabulary(tokenizer),
        **TINY,
    )


def _distilbert(tokenizer: PreTrainedTokenizerBase) -> PreTrainedConfig:
    return DistilBertConfig(
        architectures=["DistilBertForSequenceClassification"],
        dim=32,
        hidden_dim=64,
        n_layers=2,
        n_heads=2,
        max_position_embeddings=MAX_LENGTH,
        num_labels=1,
        **_vocabulary(tokenizer),
    )


def _deberta_v3(tokenizer: PreTrainedTokenizerBase) -> PreTrainedConfig:
    return DebertaV2Config(
        architectures=["DebertaV2ForSequenceClassification"],
        # What microsoft/deberta-v3-* sets apart from its sizes, the buckets smaller so that they are used up.
        type_vocab_size=0,
        relative_attention=True,
        position_buckets=16,
        norm_rel_ebd="layer_norm",
        share_att_key=True,
        pos_att_type=["p2c", "c2p"],
        max_relative_positions=-1,
        position_biased_input=False,
        max_position_embeddings=MAX_LENGTH,
        pooler_dropout=0,
        pooler_hidden_act="gelu",
        pooler_hidden_size=32,
        num_labels=1,
        **_vocabulary(tokenizer),
        **TINY,
    )


def _modernbert(
    tokenizer: PreTrainedTokenizerBase, architecture: str = "ModernBertForSequenceClassification"
) -> PreTrainedConfig:
    return ModernBertConfig(
        architectures=[architecture],
        max_position_embeddings=MAX_LENGTH,
        # One layer that sees everything, one that sees eight tokens on each side.
        global_attn_every_n_layers=2,
        local_attention=16,
        classifier_pooling="mean",
        num_labels=1,
        cls_token_id=tokenizer.cls_token_id,
        sep_token_id=tokenizer.sep_token_id,
        bos_token_id=tokenizer.cls_token_id,
        eos_token_id=tokenizer.sep_token_id,
        **_vocabulary(tokenizer),
        **TINY,
    )


def _gte(tokenizer: PreTrainedTokenizerBase) -> PreTrainedConfig:
    return GteConfig(
        architectures=["GteForSequenceClassification"],
        type_vocab_size=1,
        max_position_embeddings=MAX_LENGTH,
        num_labels=1,
        **_vocabulary(tokenizer),
        **TINY,
    )


def _jina_bert(tokenizer: PreTrainedTokenizerBase) -> PreTrainedConfig:
    return BertConfig(
        architectures=["JinaBertForSequenceClassification"],
        position_embedding_type="alibi",
        feed_forward_type="geglu",
        emb_pooler="mean",
        type_vocab_size=2,
        max_position_embeddings=8192,
        num_labels=1,
        **_vocabulary(tokenizer),
        **TINY,
    )


def _qwen3(tokenizer: PreTrainedTokenizerBase, architecture: str = "Qwen3ForCausalLM", **head: Any) -> PreTrainedConfig:
    return Qwen3Config(
        architectures=[architecture],
        head_dim=16,
        num_key_value_heads=1,
        max_position_embeddings=40960,
        rope_parameters={"rope_type": "default", "rope_theta": 1_000_000.0},
        tie_word_embeddings=True,
        eos_token_id=tokenizer.eos_token_id,
        **_vocabulary(tokenizer),
        **TINY,
        **head,
    )


def _qwen2(tokenizer: PreTrainedTokenizerBase) -> PreTrainedConfig:
    return Qwen2Config(
        architectures=["Qwen2ForCausalLM"],
        num_key_value_heads=1,
        max_position_embeddings=32768,
        rope_parameters={"rope_type": "default", "rope_theta": 1_000_000.0},
        tie_word_embeddings=True,
        eos_token_id=tokenizer.eos_token_id,
        **_vocabulary(tokenizer),
        **TINY,
    )


RECIPES: dict[str, Recipe] = {
    "bert": Recipe(tokenizer=lambda: vocabulary.bert(MAX_LENGTH), config=_bert_for_ranking, seed=7),
    # RoBERTa's length has to be read from config.json, XLM-R's from tokenizer_config.json.
    "roberta": Recipe(tokenizer=lambda: vocabulary.roberta(vocabulary.UNLIMITED), config=_roberta, seed=5),
    "xlm-roberta": Recipe(tokenizer=lambda: vocabulary.xlm_roberta(MAX_LENGTH), config=_xlm_roberta, seed=3),
    "bert-2-labels": Recipe(tokenizer=lambda: vocabulary.bert(MAX_LENGTH), config=partial(_bert, num_labels=2), seed=2),
    "bert-3-labels": Recipe(tokenizer=lambda: vocabulary.bert(MAX_LENGTH), config=_bert_for_inference, seed=3),
    "electra": Recipe(tokenizer=lambda: vocabulary.bert(MAX_LENGTH), config=_electra),
    "distilbert": Recipe(tokenizer=lambda: vocabulary.distilbert(MAX_LENGTH), config=_distilbert),
    "deberta-v2": Recipe(tokenizer=lambda: vocabulary.deberta_v3(vocabulary.UNLIMITED), config=_deberta_v3),
    "modernbert": Recipe(tokenizer=lambda: vocabulary.modernbert(MAX_LENGTH), config=_modernbert),
    "gte": Recipe(tokenizer=lambda: vocabulary.xlm_roberta(MAX_LENGTH), config=_gte, seed=1),
    "jina-bert": Recipe(
        # RoBERTa's template, so no token types, though the graph takes them.
        tokenizer=lambda: vocabulary.roberta(8192),
        config=_jina_bert,
        model=JinaBertForSequenceClassification,
        zeros=("token_type_ids",),
    ),
    "qwen3-reranker": Recipe(
        tokenizer=lambda: vocabulary.qwen(131072, padding_side="left"),
        config=_qwen3,
        prompt="qwen3",
        answers=("no", "yes"),
        max_length=PROMPT_LENGTH,
        position_ids=True,
        past=True,
    ),
    "qwen3-reranker-plain": Recipe(
        tokenizer=lambda: vocabulary.qwen(131072),
        config=_qwen3,
        prompt="qwen3",
        answers=("no", "yes"),
        max_length=PROMPT_LENGTH,
        seed=1,
    ),
    "qwen3-seq-cls": Recipe(
        tokenizer=lambda: vocabulary.qwen(131072, padding_side="left"),
        config=partial(_qwen3, architecture="Qwen3ForSequenceClassification", num_labels=1),
        prompt="qwen3",
        max_length=PROMPT_LENGTH,
        seed=7,
    ),
    "mxbai-rerank-v2": Recipe(
        tokenizer=lambda: vocabulary.qwen(PROMPT_LENGTH),
        config=_qwen2,
        prompt="mxbai-v2",
        answers=("0", "1"),
        max_length=PROMPT_LENGTH,
        position_ids=True,
    ),
    "ettin": Recipe(
        tokenizer=lambda: vocabulary.modernbert(MAX_LENGTH),
        config=partial(_modernbert, architecture="ModernBertModel"),
        modular=True,
    ),
}
