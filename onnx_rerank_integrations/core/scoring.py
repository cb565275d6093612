"""Logits to scores to an order. Pure arithmetic, in float64."""

from __future__ import annotations

import re
from collections.abc import Callable, Mapping, Sequence
from typing import Any, Literal

import numpy as np
from numpy.typing import NDArray

from onnx_rerank_integrations.core.errors import InputTypeError, InputValueError, ScoreError, UnsupportedModelError

Activation = Literal["identity", "sigmoid", "model"]
Floats = NDArray[np.float64]

NOT_RELEVANT = re.compile(
    r"(not|non|no|never|isn't|irrelevant|nonrelevant|unrelated|false|neg|negative|different|dissimilar|distinct|bad|wrong"
    r"|incorrect|contradiction|contradicts|refutes|mismatch|reject|rejected|unanswerable|spam|0|label_0)(\b|_)",
    re.IGNORECASE,
)
RELEVANT = re.compile(
    r"(is_)?(relevant|relevance|related|true|yes|pos|positive|good|right|correct|same|similar|equal|equivalent|duplicate"
    r"|paraphrase|match|matching|entailment|entails|supports|accept|accepted|answerable|answer|score|1|label_1)(\b|_)",
    re.IGNORECASE,
)

Units = Literal["logits", "softmax", "sigmoid"]
"""What the columns of a head are: logits, or what the graph itself made of them."""


def is_vector_name(output: str) -> bool:
    """Whether an output's name says that it is a vector for each text or token."""
    return re.search(r"embed|pooler|pooled|hidden", output, re.IGNORECASE) is not None


def sigmoid(logits: Floats) -> Floats:
    """Log-odds to 0..1, without overflow."""
    return np.exp(-np.logaddexp(0.0, -logits))


def identity(logits: Floats) -> Floats:
    return logits


def activation_function(activation: Activation, config: Mapping[str, Any]) -> Callable[[Floats], Floats]:
    """The function that turns logits into scores.

    ``"model"`` follows the model's own config as sentence-transformers 6 does: its named activation function, else a
    sigmoid for one label and none for more.

    Raises:
        UnsupportedModelError: The config asks for a function other than the identity and the sigmoid.
    """
    if activation != "model":
        return sigmoid if activation == "sigmoid" else identity
    settings = config.get("sentence_transformers")
    settings = settings if isinstance(settings, Mapping) else {}
    asked = settings.get("activation_fn") or config.get("sbert_ce_default_activation_function")
    if asked is None:
        return sigmoid if label_count(config) == 1 else identity
    name = str(asked).rsplit(".", 1)[-1].lower()
    if name not in ("identity", "sigmoid"):
        raise UnsupportedModelError(
            f'The model\'s config asks for the activation {asked!r}; "identity" and "sigmoid" are supported.\n'
            'Choose activation="identity" or activation="sigmoid" yourself.'
        )
    return sigmoid if name == "sigmoid" else identity


def label_count(config: Mapping[str, Any]) -> int:
    """Labels the config states; transformers' own default is two, a reranker's is one."""
    stated = config.get("num_labels")
    if isinstance(stated, int) and not isinstance(stated, bool):
        return stated
    return len(_names_by_place(config)) or 1


def relevant_label(labels: int, label: int | str | None, config: Mapping[str, Any]) -> int:
    """Which of the L columns of a head means 'relevant'.

    Args:
        labels: L.
        label: The user's choice, by position or by the config's name; None to read it from the config.
        config: config.json.

    Raises:
        InputValueError: `label` is no label of this model.
        UnsupportedModelError: Three or more labels, and nothing says which one is meant.
    """
    names = label_names(labels, config)
    listed = ", ".join(f"{place}: {name}" for place, name in enumerate(names))
    if isinstance(label, str):
        matches = [place for place, name in enumerate(names) if name.lower() == label.lower()]
        if not matches:
            raise InputValueError(f"label={label!r} is no label of this model, which has {listed}")
        return matches[0]
    if label is not None:
        if isinstance(label, bool) or not isinstance(label, int):
            raise InputTypeError(f"label must be a label's name or place, not {label!r}")
        if not 0 <= label < labels:
            raise InputValueError(f"label={label!r} is no label of this model, which has {listed}")
        return label
    if labels == 1:
        return 0
    stated = list(_names_by_place(config).values())
    if len(stated) not in (0, labels):
        raise UnsupportedModelError(
            f"The model gives {labels} scores for a pair, and its config.json has names for {len(stated)}: "
            f"{', '.join(stated)}.\nUse the config.json that belongs to the graph, or say which score to rank by: "
            f"label={labels - 1}"
        )
    if labels == 2 and (understood := _relevant_of_two(names)) is not None:
        return understood
    raise UnsupportedModelError(
        f"The model gives {labels} scores for a pair ({listed}) and "
        + ("nothing says which is 'relevance'.\n" if labels == 2 else "none of them is 'relevance'.\n")
        + f"Say which one to rank by: label={names[-1]!r} or label={labels - 1}"
    )


def _relevant_of_two(names: Sequence[str]) -> int | None:
    """Which of two labels means 'relevant', by their names; None where they don't tell."""
    for_it = [bool(RELEVANT.match(name)) and not NOT_RELEVANT.match(name) for name in names]
    against = [bool(NOT_RELEVANT.match(name)) for name in names]
    by_place = [bool(yes) - bool(no) for yes, no in zip(for_it, against, strict=True)]
    return None if by_place[0] == by_place[1] else int(by_place[1] > by_place[0])


def label_names(labels: int, config: Mapping[str, Any]) -> list[str]:
    """L names from the config's id2label, ``LABEL_0``... where it has none."""
    names = _names_by_place(config)
    return [names.get(str(place), f"LABEL_{place}") for place in range(labels)]


def _names_by_place(config: Mapping[str, Any]) -> dict[str, str]:
    """The config's labels, from id2label (an object or a list), else from label2id."""
    id2label, label2id = config.get("id2label"), config.get("label2id")
    if isinstance(id2label, (list, tuple)):
        id2label = dict(enumerate(id2label))
    if isinstance(id2label, Mapping):
        return {str(place): str(name) for place, name in id2label.items()}
    return {str(place): str(name) for name, place in label2id.items()} if isinstance(label2id, Mapping) else {}


def units_of(operator: str, trials: NDArray[np.floating[Any]]) -> Units:
    """What a head's columns are; of a hard sigmoid too, a sigmoid gives back the values that the graph gives.

    Args:
        operator: What computes them in the graph.
        trials: (B, L) of some pairs.
    """
    values = trials.astype(np.float64)
    values = values[np.isfinite(values).all(axis=1)]
    if not len(values) or not np.all((values >= 0) & (values <= 1)):
        return "logits"
    if operator in ("Sigmoid", "HardSigmoid") or (operator == "Softmax" and values.shape[1] == 1):
        return "sigmoid"
    sums_to_one = bool(np.all(np.abs(values.sum(axis=1) - 1) < 1e-3))
    return "softmax" if values.shape[1] > 1 and sums_to_one else "logits"


def logits_of(values: NDArray[np.floating[Any]], units: Units) -> Floats:
    """Logits (B, L) whose sigmoid, or softmax, the values are; finite for a 0 and a 1 that were rounded to.

    A sigmoid near 1 has few digits left: above 16 (7 in 16 bits) its logits can't be told apart any more.
    """
    exact: Floats = values.astype(np.float64)
    limits = np.finfo(values.dtype)
    low = np.clip(exact, float(limits.tiny), None)
    if units == "softmax":
        return np.asarray(np.log(low))
    return np.asarray(np.log(low) - np.log(np.clip(1 - exact, float(limits.epsneg) / 2, None)))


def relevance_of_probabilities(values: NDArray[np.floating[Any]], *, units: Units, label: int) -> Floats:
    """One logit per pair, (B,), of a head whose columns (B, L) are a sigmoid's or a softmax's."""
    logits = logits_of(values, units)
    return logits[:, label] if units == "sigmoid" else relevance_logits(logits, label)


def relevance_logits(logits: NDArray[np.floating[Any]], label: int, *, independent: bool = False) -> Floats:
    """One number per pair whose sigmoid is the label's probability.

    Args:
        logits: (B, L). One label is a logit already. Of two or more, the label's log-odds under their softmax is
            taken: for two labels that is z1 - z0.
        label: The column that means 'relevant'.
        independent: Whether a pair may have several labels, so that each column is a logit by itself.

    Returns:
        (B,)
    """
    columns: Floats = logits.astype(np.float64)
    if columns.shape[1] == 1 or independent:
        return columns[:, label]
    with np.errstate(invalid="ignore"):  # NaN stays NaN here and is reported by check_finite
        rest: Floats = np.logaddexp.reduce(np.delete(columns, label, axis=1), axis=1)
    return columns[:, label] - rest


def next_word_logits(logits: NDArray[np.floating[Any]], positive: int, negative: int | None) -> Floats:
    """How much rather a language model would go on with one word than with another; the sigmoid is that preference.

    Args:
        logits: (B, T, V), of rows that are padded on the left, so that the last position is each prompt's end.
        positive: The id of the word that means 'relevant'.
        negative: The id of the word that means 'not relevant'; None where the first one's logit is the score.

    Returns:
        (B,)
    """
    last = logits[:, -1].astype(np.float64)
    return np.asarray(last[:, positive] - (0.0 if negative is None else last[:, negative]))


def check_finite(logits: Floats) -> None:
    """Raises ScoreError that names the first pairs without a score."""
    broken = np.flatnonzero(~np.isfinite(logits))
    if len(broken):
        listed = ", ".join(map(str, broken[:5])) + (", ..." if len(broken) > 5 else "")
        raise ScoreError(
            f"The model gave {logits[broken[0]]} instead of a score for {len(broken)} of {len(logits)} documents: "
            f"index {listed}. No ranking was made: look at those texts, or use another file of the model (fp32)."
        )


def best_first(logits: Floats, scores: Floats, *, top_n: int | None, score_threshold: float | None) -> list[int]:
    """Indices of the kept documents, best first; equal logits keep their input order.

    Args:
        logits: (N,) what the order is decided on, so that saturated sigmoids don't tie.
        scores: (N,) what `score_threshold` is compared with (>=), before `top_n`.
        top_n: Most documents kept; None for all.
        score_threshold: The lowest score that is kept; None for any.
    """
    order = np.argsort(-logits, kind="stable")
    if score_threshold is not None:
        order = order[scores[order] >= score_threshold]
    return [int(index) for index in order[:top_n]]


def aggregate_windows(logits: Floats, owners: NDArray[np.intp], count: int, how: str) -> Floats:
    """One logit per document from the logits of its windows.

    Args:
        logits: (M,) of all windows.
        owners: (M,) the document each window belongs to; each document owns at least one.
        count: N documents.
        how: ``"max"`` or ``"mean"``; with one window per document both give its logit.

    Returns:
        (N,)
    """
    if how == "mean":
        sums, counts = np.zeros(count), np.zeros(count)
        np.add.at(sums, owners, logits)
        np.add.at(counts, owners, 1.0)
        return sums / counts
    highest = np.full(count, -np.inf)
    with np.errstate(invalid="ignore"):  # NaN stays NaN here and is reported by check_finite
        np.maximum.at(highest, owners, logits)
    return highest
