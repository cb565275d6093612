"""Several models in a row: a cheap one prunes, a strong one decides."""

from __future__ import annotations

from collections import defaultdict
from collections.abc import Iterable, Mapping, Sequence
from typing import Any

import numpy as np

from onnx_rerank_integrations.core.base import TextCrossEncoderBase
from onnx_rerank_integrations.core.checks import check_top_n
from onnx_rerank_integrations.core.errors import InputTypeError, InputValueError
from onnx_rerank_integrations.core.scoring import Floats
from onnx_rerank_integrations.core.types import Pair


class Cascade(TextCrossEncoderBase):
    """Ranks with several models, each on the documents that the one before kept. Made by `TextCrossEncoder.cascade`.

    The documents that the last model saw come first, with its scores. A document that was pruned keeps its place below
    them: its logit is moved down so far that the best pruned one lies `GAP` below the last survivor.

    Args:
        models: From the cheapest to the strongest.
        keep: How many documents of a query each model keeps, one number per model; the last may be left out. What the
            last keeps bounds the length of `rank`'s answer.

    Raises:
        InputTypeError: A model isn't an encoder.
        InputValueError: Fewer than two models, or `keep` doesn't fit or doesn't shrink.
    """

    GAP = 1.0

    def __init__(self, models: Sequence[TextCrossEncoderBase], keep: Sequence[int]) -> None:
        self.models = tuple(models)
        self.keep = tuple(keep)
        for model in self.models:
            if not isinstance(model, TextCrossEncoderBase):
                raise InputTypeError(f"a cascade is made of encoders, not of {type(model).__name__}")
        if len(self.models) < 2:
            raise InputValueError(f"a cascade needs two models or more, not {len(self.models)}")
        if len(self.keep) not in (len(self.models), len(self.models) - 1):
            raise InputValueError(
                f"keep has {len(self.keep)} numbers for {len(self.models)} models; it needs one per model, and may "
                "leave out the last"
            )
        for number in self.keep:
            check_top_n(number, name="keep")
        if any(later > earlier for earlier, later in zip(self.keep, self.keep[1:], strict=False)):
            raise InputValueError(f"keep={list(self.keep)} must not grow: a later model only sees what is left")
        self.activation = self.models[-1].activation
        self.longest_ranking = self.keep[-1] if len(self.keep) == len(self.models) else None

    @property
    def config(self) -> Mapping[str, Any]:
        """The last model's, which the reported scores are from."""
        return self.models[-1].config

    def logits(
        self,
        pairs: Sequence[Pair],
        *,
        batch_size: int | None = None,
        parallel: int | None = None,
        show_progress: bool = False,
    ) -> Floats:
        how: dict[str, Any] = {"batch_size": batch_size, "parallel": parallel, "show_progress": show_progress}
        logits = self.models[0].logits(pairs, **how)
        by_query: defaultdict[str, list[int]] = defaultdict(list)
        for place, (query, _) in enumerate(pairs):
            by_query[query].append(place)
        groups = [np.array(places) for places in by_query.values()]
        for model, kept in zip(self.models[1:], self.keep, strict=False):
            survivors = [group[np.argsort(-logits[group], kind="stable")][:kept] for group in groups]
            chosen = np.concatenate(survivors)
            decided = model.logits([pairs[place] for place in chosen], **how)
            stage = logits.copy()
            stage[chosen] = decided
            for group, survivor in zip(groups, survivors, strict=True):
                pruned = np.setdiff1d(group, survivor)
                if len(pruned):
                    stage[pruned] += stage[survivor].min() - self.GAP - logits[pruned].max()
            logits = stage
        return logits

    def token_count(self, pairs: Iterable[Pair]) -> int:
        """Tokens the first model reads, which sees every pair."""
        return self.models[0].token_count(pairs)

    def truncated(self, pairs: Iterable[Pair]) -> list[bool]:
        """For each pair, whether the last model would see it cut."""
        return self.models[-1].truncated(pairs)

    def __repr__(self) -> str:
        return f"TextCrossEncoder.cascade([{', '.join(map(repr, self.models))}], keep={list(self.keep)})"

    def __eq__(self, other: object) -> bool:
        return isinstance(other, Cascade) and (self.models, self.keep) == (other.models, other.keep)

    def __hash__(self) -> int:
        return hash((self.models, self.keep))
