"""What each fixture is: which tokenizer, which tiny configuration, which seed."""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import dataclass

from transformers import (
    BertConfig,
    PreTrainedConfig,
    PreTrainedTokenizerBase,
    RobertaConfig,
    XLMRobertaConfig,
)

from tests.parity import vocabulary

MAX_LENGTH = 64
"""The longest pair every fixture takes, in tokens."""

TINY = {"hidden_size": 32, "num_hidden_layers": 2, "num_attention_heads": 2, "intermediate_size": 64}


@dataclass(frozen=True, kw_only=True)
class Recipe:
    """One fixture.

    Attributes:
        tokenizer: Trains the tokenizer.
        config: Gives the configuration for that tokenizer; its ``architectures`` names the class in transformers.
        seed: Where the weights' random numbers start.
    """

    tokenizer: Callable[[], PreTrainedTokenizerBase]
    config: Callable[[PreTrainedTokenizerBase], PreTrainedConfig]
    seed: int = 0


def _bert(tokenizer: PreTrainedTokenizerBase) -> PreTrainedConfig:
    return BertConfig(
        architectures=["BertForSequenceClassification"],
        vocab_size=len(tokenizer),
        max_position_embeddings=MAX_LENGTH,
        pad_token_id=tokenizer.pad_token_id,
        num_labels=1,
        # As the ms-marco models say that their logits are to be left alone.
        sentence_transformers={"activation_fn": "torch.nn.modules.linear.Identity"},
        **TINY,
    )


def _roberta(tokenizer: PreTrainedTokenizerBase) -> PreTrainedConfig:
    return RobertaConfig(architectures=["RobertaForSequenceClassification"], **_roberta_facts(tokenizer), **TINY)


def _xlm_roberta(tokenizer: PreTrainedTokenizerBase) -> PreTrainedConfig:
    return XLMRobertaConfig(architectures=["XLMRobertaForSequenceClassification"], **_roberta_facts(tokenizer), **TINY)


def _roberta_facts(tokenizer: PreTrainedTokenizerBase) -> dict[str, int]:
    return {
        "vocab_size": len(tokenizer),
        # Positions are counted from padding id + 1, so the first two are never used.
        "max_position_embeddings": MAX_LENGTH + 2,
        "type_vocab_size": 1,
        "pad_token_id": tokenizer.pad_token_id,
        "bos_token_id": tokenizer.bos_token_id,
        "eos_token_id": tokenizer.eos_token_id,
        "num_labels": 1,
    }


RECIPES: dict[str, Recipe] = {
    "bert": Recipe(tokenizer=lambda: vocabulary.bert(MAX_LENGTH), config=_bert),
    # RoBERTa's length has to be read from config.json, XLM-R's from tokenizer_config.json.
    "roberta": Recipe(tokenizer=lambda: vocabulary.roberta(vocabulary.UNLIMITED), config=_roberta),
    "xlm-roberta": Recipe(tokenizer=lambda: vocabulary.xlm_roberta(MAX_LENGTH), config=_xlm_roberta),
}
