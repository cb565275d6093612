"""Pictures of a ranking, one call each: how reranking changed it, and how its scores lie.

Needs the extra [plot]. Figures are made without pyplot, so no backend, window or global state is involved: save one
with ``figure.savefig("picture.png")``, or let a notebook show it as the last value of a cell. The colours are Okabe and
Ito's (https://jfly.uni-koeln.de/color), which people with any colour vision can tell apart.
"""

from __future__ import annotations

import io
import textwrap
import unicodedata
from collections.abc import Callable, Iterable, Mapping, Sequence
from dataclasses import dataclass
from typing import Any

import numpy as np

from onnx_rerank_integrations.core.errors import InputTypeError, InputValueError
from onnx_rerank_integrations.core.types import RankedDocument
from onnx_rerank_integrations.extras.markdown import one_line
from onnx_rerank_integrations.extras.needs_extra import needs_extra

with needs_extra("plot", "A picture"):
    from matplotlib.figure import Figure

BLUE, VERMILLION, GREEN, PURPLE, ORANGE, SKY = "#0072B2", "#D55E00", "#009E73", "#CC79A7", "#E69F00", "#56B4E9"
GREY = "#8C8C8C"
SERIES = (BLUE, VERMILLION, GREEN, PURPLE, ORANGE, SKY)
MARKERS = ("o", "s", "^", "D", "v", "P")

LABEL_WIDTH = 46
"""Characters of a document's label; wide ones (Chinese, Japanese, Korean) count twice."""

_GAP = 0.8
"""Rows left free between the first places and documents from further down."""

_MARGIN = 0.06
"""Between a line's end and its label, as a part of the line's width."""

_TEXT: dict[str, Any] = {"fontsize": 9, "parse_math": False}


class Picture(Figure):
    """A matplotlib Figure that notebooks show without ``%matplotlib inline``."""

    def _repr_png_(self) -> bytes:
        png = io.BytesIO()
        self.savefig(png, format="png")
        return png.getvalue()


def plot_ranking_change(
    before: Sequence[Any],
    after: Sequence[Any],
    *,
    relevant: Iterable[int] | None = None,
    top_n: int = 10,
    text: Callable[[Any], str] | None = None,
    title: str | None = None,
) -> Figure:
    """A slope chart: each document's place before on the left, after reranking on the right.

    Documents that rose are blue, those that fell orange-red, the others grey. The first `top_n` places of either side
    are shown, and where each of those documents came from or went to.

    Args:
        before: N documents in their first order: str, LangChain documents, LlamaIndex nodes, or whatever `text` reads.
        after: Those that were kept, in their new order: of the same kind, or what `TextCrossEncoder.rank` gave.
        relevant: Places in `before`, from 0, of documents known to be relevant; they are drawn with stars and thick
            lines. None where that isn't known.
        top_n: Places shown of each side.
        text: The label of a document; None for its text.
        title: None for a standing one.

    Raises:
        InputValueError: A document of `after` isn't in `before`, or `top_n` is below 1.
        InputTypeError: A document is of a kind that needs `text`.
    """
    if top_n < 1:
        raise InputValueError(f"top_n={top_n} must be 1 or more")
    moves = _moves(before, after, text or _text_of)
    shown = [move for move in moves if move.before <= top_n or (move.after or top_n + 1) <= top_n]
    left = _rows([move.before for move in shown], top_n)
    right = _rows([_place_after(move, moves) for move in shown], top_n)
    marked = None if relevant is None else {place + 1 for place in relevant}

    places = _column(f"{move.after}" if move.after else "cut" for move in shown)
    scores = _column("" if move.score is None else f"{move.score:.2f}" for move in shown)
    rows = max([*left.values(), *right.values()], default=1)
    figure = Picture(figsize=(11, 1.3 + 0.3 * rows), layout="constrained", dpi=120)
    axes = figure.add_subplot()
    for move, new, score in zip(shown, places, scores, strict=True):
        is_marked = marked is not None and move.before in marked
        heights = (left[move.before], right[_place_after(move, moves)])
        weight = "bold" if is_marked else "normal"
        axes.plot(
            (0, 1),
            heights,
            color=move.color,
            linewidth=3 if is_marked else 1.3,
            alpha=1 if is_marked or marked is None else 0.55,
            linestyle="-" if move.after else ":",
            marker="*" if is_marked else "o",
            markersize=13 if is_marked else 5,
        )
        label = shortened(move.label)
        axes.text(-_MARGIN, heights[0], f"{label}   {move.before}", ha="right", va="center", weight=weight, **_TEXT)
        behind = "   ".join(filter(None, (new, score, label)))
        axes.text(1 + _MARGIN, heights[1], behind, ha="left", va="center", weight=weight, **_TEXT)
    axes.text(-_MARGIN, 0, "before: place", ha="right", va="center", color=GREY, **_TEXT)
    scored = any(move.score is not None for move in shown)
    axes.text(
        1 + _MARGIN, 0, "after: place" + (", score" if scored else ""), ha="left", va="center", color=GREY, **_TEXT
    )
    axes.set(xticks=[], yticks=[])
    axes.set_xlim(-1.5, 2.5)
    axes.set_ylim(rows + 0.6, -0.6)
    axes.axis("off")
    axes.set_title(_wrapped(title or "What reranking changed", 110), parse_math=False, fontsize=12, pad=12)
    _direction_legend(figure, shown, marked)
    return figure


def plot_scores(
    scores: Sequence[float] | Mapping[str, Sequence[float]],
    *,
    relevant: Sequence[bool] | None = None,
    threshold: float | None = None,
    bins: int = 30,
    xlabel: str = "score",
    title: str | None = None,
) -> Figure:
    """A histogram of scores; of several models one below the other.

    Args:
        scores: N scores, or N scores for each name, of the same documents.
        relevant: For each of the N documents whether it is relevant: the two kinds are drawn apart, each as shares of
            its own kind, as the relevant ones are few. None to count all together.
        threshold: Where to draw a line, which says how much lies at or above it; in the scale of `scores`.
        bins: Bars from the lowest score to the highest.
        xlabel: What the scores are.
        title: None for none.

    Raises:
        InputValueError: There are no scores, `relevant` isn't as long as they are, or a score isn't finite.
    """
    named = {"": scores} if not isinstance(scores, Mapping) else scores
    arrays = {name: np.asarray(list(values), dtype=float) for name, values in named.items()}
    flags = None if relevant is None else np.asarray(list(relevant), dtype=bool)
    _check_scores(arrays, flags)

    figure = Picture(figsize=(7.5, 0.8 + 2.6 * len(arrays)), layout="constrained", dpi=120)
    panels = figure.subplots(len(arrays), 1, squeeze=False)[:, 0]
    for axes, (name, values) in zip(panels, arrays.items(), strict=True):
        _histogram(axes, values, flags, bins)
        if threshold is not None:
            axes.axvline(
                threshold, color="black", linestyle="--", linewidth=1.5, label=_above(values, flags, threshold)
            )
        axes.set_title(name, loc="left", fontsize=10, parse_math=False)
        axes.set_ylabel("documents" if flags is None else "share of its kind")
        axes.spines[["top", "right"]].set_visible(False)
        if flags is not None or threshold is not None:
            axes.set_ylim(top=axes.get_ylim()[1] * 1.35)  # room for the legend above the bars
            axes.legend(frameon=False, fontsize=9, loc="upper right")
    panels[-1].set_xlabel(xlabel)
    if title:
        figure.suptitle(_wrapped(title, 75), parse_math=False, fontsize=12)
    return figure


@dataclass(frozen=True)
class _Move:
    """A document's places, from 1; `after` is None where it was cut."""

    label: str
    before: int
    after: int | None
    score: float | None

    @property
    def color(self) -> str:
        if self.after == self.before:
            return GREY
        return BLUE if self.after is not None and self.after < self.before else VERMILLION


def _moves(before: Sequence[Any], after: Sequence[Any], text: Callable[[Any], str]) -> list[_Move]:
    """Finds each document of `after` in `before`: by its index where it has one, else the next of equal text."""
    labels = [text(document) for document in before]
    unused: dict[str, list[int]] = {}
    for place, label in reversed(list(enumerate(labels))):
        unused.setdefault(label, []).append(place)
    new_places: dict[int, tuple[int, float | None]] = {}
    for place, document in enumerate(after, start=1):
        if isinstance(document, RankedDocument):
            origin = document.index
        else:
            places = unused.get(text(document))
            origin = places.pop() if places else -1
        if not 0 <= origin < len(labels) or origin in new_places:
            raise InputValueError(f"document {place - 1} of after isn't in before: {shortened(text(document))!r}")
        new_places[origin] = (place, _score_of(document))
    return [_Move(label, place + 1, *new_places.get(place, (None, None))) for place, label in enumerate(labels)]


def _text_of(document: Any) -> str:
    """The text of a str, a RankedDocument, a LangChain document or a LlamaIndex node."""
    if isinstance(document, str):
        return document
    for name in ("text", "page_content", "get_content"):
        found = getattr(document, name, None)
        found = found() if callable(found) else found
        if isinstance(found, str):
            return found
    raise InputTypeError(f"a {type(document).__name__} has no text that is known here: give text=, a function")


def _score_of(document: Any) -> float | None:
    """The score that a reranker left on a document, None where there is none."""
    score = getattr(document, "score", None)
    if score is None and isinstance(metadata := getattr(document, "metadata", None), Mapping):
        score = metadata.get("relevance_score")
    return score if isinstance(score, float | int) else None


def _column(texts: Iterable[str]) -> list[str]:
    """Numbers of one width, by spaces as wide as a digit."""
    texts = [text.replace("-", "\N{MINUS SIGN}") for text in texts]
    width = max(map(len, texts), default=0)
    return [text.rjust(width, "\N{FIGURE SPACE}") for text in texts]


def _place_after(move: _Move, moves: Sequence[_Move]) -> int:
    """Its place after; documents that were cut come behind all others, in their old order."""
    return move.after if move.after is not None else len(moves) + move.before


def _rows(places: Sequence[int], top_n: int) -> dict[int, float]:
    """Where each place is drawn: the first `top_n` on rows of that number, those further down below a gap."""
    rows = {place: float(place) for place in places if place <= top_n}
    last = max(rows.values(), default=0) + _GAP
    further = sorted(place for place in places if place > top_n)
    return rows | {place: last + row for row, place in enumerate(further, start=1)}


def _direction_legend(figure: Any, shown: Sequence[_Move], marked: set[int] | None) -> None:
    from matplotlib.lines import Line2D

    names = {BLUE: "rose", VERMILLION: "fell", GREY: "kept its place"}
    colors = {move.color for move in shown}
    entries = [Line2D([], [], color=color, label=name, marker="o") for color, name in names.items() if color in colors]
    if marked:
        entries.append(
            Line2D([], [], color="black", linewidth=3, marker="*", markersize=12, label="known to be relevant")
        )
    if any(move.after is None for move in shown):
        entries.append(Line2D([], [], color=VERMILLION, linestyle=":", label="cut"))
    figure.legend(handles=entries, loc="outside lower center", ncols=len(entries) or 1, frameon=False, fontsize=9)


def shortened(text: str, width: int = LABEL_WIDTH) -> str:
    """The text on one line of at most `width` characters, cut at a space where there is one near."""
    text = one_line(text)
    widths = [2 if unicodedata.east_asian_width(character) in "WF" else 1 for character in text]
    if sum(widths) <= width:
        return text
    room = int(np.searchsorted(np.cumsum(widths), width - 1, side="right"))
    space = text.rfind(" ", room * 3 // 4, room + 1)
    return text[: space if space > 0 else room].rstrip(" .,;:") + "…"


def _wrapped(title: str, width: int) -> str:
    return "\n".join(textwrap.wrap(shortened(title, 2 * width - 10), width))


def _check_scores(arrays: Mapping[str, Any], flags: Any) -> None:
    for name, values in arrays.items():
        of = f" of {name!r}" if name else ""
        if len(values) == 0:
            raise InputValueError(f"there are no scores{of} to plot")
        if not np.isfinite(values).all():
            raise InputValueError(f"score {int(np.flatnonzero(~np.isfinite(values))[0])}{of} isn't finite")
        if flags is not None and len(flags) != len(values):
            raise InputValueError(f"relevant has {len(flags)} entries for {len(values)} scores{of}")


def _histogram(axes: Any, values: Any, flags: Any, bins: int) -> None:
    edges = np.histogram_bin_edges(values, bins=bins)
    if flags is None:
        axes.hist(values, bins=edges, color=BLUE, edgecolor="white", linewidth=0.5)
        return
    for kept, name, color, hatch in ((~flags, "not relevant", GREY, None), (flags, "relevant", BLUE, "//")):
        count = int(kept.sum())
        axes.hist(
            values[kept],
            bins=edges,
            weights=np.full(count, 1 / max(count, 1)),
            histtype="stepfilled",
            color=color,
            edgecolor=color,
            alpha=0.55,
            hatch=hatch,
            label=f"{name} ({count:,})",
        )


def _above(values: Any, flags: Any, threshold: float) -> str:
    kept = values >= threshold
    if flags is None:
        return f"≥ {threshold:g}: {int(kept.sum()):,} of {len(values):,}"
    relevant, others = int((kept & flags).sum()), int((kept & ~flags).sum())
    return f"≥ {threshold:g}: {relevant:,} relevant, {others:,} not"
