"""Pictures of rankings: rendered for real, and measured where a reader would look."""

from __future__ import annotations

import io
import subprocess
import sys
from itertools import combinations
from pathlib import Path
from typing import Any

import numpy as np
import pytest
from matplotlib.colors import to_hex
from matplotlib.image import imread
from matplotlib.text import Text

from onnx_rerank_integrations import InputTypeError, InputValueError, RankedDocument
from onnx_rerank_integrations.extras.plot import BLUE, GREY, VERMILLION, plot_ranking_change, plot_scores, shortened

DOCUMENTS = [f"document number {place} about {'wings and ' * place}things" for place in range(30)]


def render(figure: Any) -> Any:
    """The picture's pixels, (height, width, 4)."""
    png = io.BytesIO()
    figure.savefig(png, format="png")
    png.seek(0)
    return imread(png)


def texts(figure: Any) -> list[str]:
    return [text.get_text() for text in shown_texts(figure)]


def shown_texts(figure: Any) -> list[Text]:
    return [text for text in figure.findobj(Text) if text.get_visible() and text.get_text().strip()]


def lines(figure: Any) -> list[Any]:
    """The chart's slopes."""
    return list(figure.axes[0].lines)


def test_a_ranking_change_draws_a_slope_per_document_in_the_colour_of_its_direction() -> None:
    figure = plot_ranking_change(["a", "b", "c", "d"], ["c", "a", "b", "d"])

    assert render(figure).std() > 0.01
    assert [(list(line.get_ydata()), to_hex(line.get_color())) for line in lines(figure)] == [
        ([1, 2], VERMILLION.lower()),
        ([2, 3], VERMILLION.lower()),
        ([3, 1], BLUE.lower()),
        ([4, 4], GREY.lower()),
    ]
    assert {"rose", "fell", "kept its place"} <= set(texts(figure))


def test_a_ranking_of_ours_is_matched_by_index_and_shows_its_scores() -> None:
    ranked = [RankedDocument(index=1, score=0.75, text="same"), RankedDocument(index=0, score=0.5, text="same")]

    figure = plot_ranking_change(["same", "same"], ranked)

    assert [list(line.get_ydata()) for line in lines(figure)] == [[1, 2], [2, 1]]
    assert {"1   0.75   same", "2   0.50   same", "after: place, score"} <= set(texts(figure))


def test_equal_texts_without_an_index_are_matched_in_order() -> None:
    figure = plot_ranking_change(["same", "x", "same"], ["x", "same", "same"])

    assert [list(line.get_ydata()) for line in lines(figure)] == [[1, 2], [2, 1], [3, 3]]


def test_documents_from_further_down_are_drawn_below_a_gap_with_their_places() -> None:
    after = [DOCUMENTS[20], *DOCUMENTS[:20], *DOCUMENTS[21:]]

    figure = plot_ranking_change(DOCUMENTS, after, top_n=3)

    heights = [list(line.get_ydata()) for line in lines(figure)]
    assert heights == [[1, 2], [2, 3], [3, pytest.approx(4.8)], [pytest.approx(4.8), 1]]
    assert any(text.startswith("4   document number 2") for text in texts(figure))
    assert any(text.endswith("   21") for text in texts(figure))


def test_documents_that_were_cut_are_dotted_and_named_so() -> None:
    figure = plot_ranking_change(["a", "b", "c"], ["b"])

    assert [line.get_linestyle() for line in lines(figure)] == [":", "-", ":"]
    assert {"cut   a", "cut   c", "cut"} <= set(texts(figure))


def test_relevant_documents_have_stars_and_bold_labels() -> None:
    figure = plot_ranking_change(["a", "b", "c"], ["b", "a", "c"], relevant=[1])

    assert [line.get_marker() for line in lines(figure)] == ["o", "*", "o"]
    assert {text.get_text() for text in shown_texts(figure) if text.get_weight() == "bold"} == {"b   2", "1   b"}
    assert "known to be relevant" in texts(figure)


@pytest.mark.parametrize("top_n", [1, 10, 30])
def test_no_two_texts_overlap_and_none_leaves_the_picture(top_n: int) -> None:
    after = [RankedDocument(index=i, score=1 / (i + 1), text=DOCUMENTS[i]) for i in reversed(range(30))]

    figure = plot_ranking_change(DOCUMENTS, after, top_n=top_n, relevant=range(0, 30, 3), title="q " * 40)

    render(figure)
    boxes = {text: text.get_window_extent() for text in shown_texts(figure)}
    assert len(boxes) > 5
    for one, other in combinations(boxes, 2):
        assert not boxes[one].overlaps(boxes[other]), (one, other)
    for text, box in boxes.items():
        assert figure.bbox.x0 <= box.x0 < box.x1 <= figure.bbox.x1, text
        assert figure.bbox.y0 <= box.y0 < box.y1 <= figure.bbox.y1, text


def test_a_text_is_no_formula_and_stays_on_its_line() -> None:
    figure = plot_ranking_change(["from $5 to $_10\nor so", "b"], ["b", "from $5 to $_10\nor so"])

    render(figure)
    label = next(text for text in shown_texts(figure) if text.get_text() == "from $5 to $_10 or so   1")
    assert not label.get_parse_math()


@pytest.mark.parametrize(
    ("text", "expected"),
    [
        ("a  few\nwords", "a few words"),
        ("one two three four", "one two three…"),
        ("onetwothreefourfive", "onetwothreefou…"),
        ("the end. Of it all", "the end. Of it…"),
        ("金丝雀是一种小鸟", "金丝雀是一种小…"),
    ],
)
def test_long_texts_are_shortened_at_a_space_if_there_is_one_near(text: str, expected: str) -> None:
    assert shortened(text, 15) == expected


def test_documents_of_both_frameworks_are_read() -> None:
    documents = pytest.importorskip("langchain_core.documents")
    before = [documents.Document("a"), documents.Document("b")]
    after = [documents.Document("b", metadata={"relevance_score": 0.5}), documents.Document("a")]

    assert {"1   0.50   b", "2   \u2007\u2007\u2007\u2007   a"} <= set(texts(plot_ranking_change(before, after)))

    schema = pytest.importorskip("llama_index.core.schema")
    nodes = [schema.NodeWithScore(node=schema.TextNode(text=text), score=0.25) for text in "ab"]

    assert {"1   0.25   b", "2   0.25   a"} <= set(texts(plot_ranking_change(nodes, nodes[::-1])))


def test_anything_else_needs_a_function_that_gives_its_text() -> None:
    with pytest.raises(InputTypeError, match="a dict has no text that is known here: give text="):
        plot_ranking_change([{"body": "a"}], [{"body": "a"}])

    figure = plot_ranking_change([{"body": "a"}], [{"body": "a"}], text=lambda document: document["body"])
    assert "a   1" in texts(figure)


def test_a_document_after_that_was_not_there_before_is_an_error() -> None:
    with pytest.raises(InputValueError, match="document 1 of after isn't in before: 'x'"):
        plot_ranking_change(["a", "b"], ["b", "x"])
    with pytest.raises(InputValueError, match="document 1 of after isn't in before: 'a'"):
        plot_ranking_change(["a", "b"], ["a", "a"])


def test_scores_are_counted_into_bars() -> None:
    figure = plot_scores([0.0, 0.1, 0.1, 1.0], bins=2, xlabel="sigmoid")

    assert [bar.get_height() for bar in figure.axes[0].patches] == [3, 1]
    assert {"documents", "sigmoid"} <= set(texts(figure))
    assert render(figure).std() > 0.01


def test_relevant_scores_are_drawn_apart_and_the_threshold_says_what_it_keeps() -> None:
    scores = [0.9, 0.8, 0.5, 0.2, 0.1]

    figure = plot_scores(scores, relevant=[True, False, True, True, False], threshold=0.5, title="t")

    assert {"relevant (3)", "not relevant (2)", "≥ 0.5: 2 relevant, 1 not", "share of its kind"} <= set(texts(figure))
    assert list(figure.axes[0].lines[0].get_xdata()) == [0.5, 0.5]
    assert "≥ 0.5: 3 of 5" in texts(plot_scores(scores, threshold=0.5))


def test_several_models_get_a_panel_each() -> None:
    figure = plot_scores({"small": [0.1, 0.9], "large": np.array([5.0, -5.0])}, threshold=0.5)

    assert [axes.get_title(loc="left") for axes in figure.axes] == ["small", "large"]


@pytest.mark.parametrize(
    ("scores", "relevant", "message"),
    [
        ([], None, "there are no scores to plot"),
        ({"m": [1.0, float("nan")]}, None, "score 1 of 'm' isn't finite"),
        ([1.0, 2.0], [True], "relevant has 1 entries for 2 scores"),
    ],
)
def test_scores_that_can_not_be_drawn_are_an_error(scores: Any, relevant: Any, message: str) -> None:
    with pytest.raises(InputValueError, match=message):
        plot_scores(scores, relevant=relevant)


def test_one_equal_score_for_all_is_drawn_too() -> None:
    assert render(plot_scores([2.0, 2.0], relevant=[True, True])).std() > 0.01


def test_a_notebook_can_show_the_picture_and_pyplot_is_never_imported() -> None:
    code = (
        "import sys\n"
        "from onnx_rerank_integrations.extras.plot import plot_ranking_change\n"
        "png = plot_ranking_change(['a', 'b'], ['b', 'a'])._repr_png_()\n"
        "assert png.startswith(b'\\x89PNG'), png[:8]\n"
        "assert 'matplotlib.pyplot' not in sys.modules\n"
    )
    done = subprocess.run([sys.executable, "-c", code], capture_output=True, cwd=Path(__file__).parent.parent)

    assert done.returncode == 0, done.stderr


def test_without_matplotlib_the_error_says_what_to_install() -> None:
    code = "import sys; sys.modules['matplotlib.figure'] = None; import onnx_rerank_integrations.extras.plot"
    done = subprocess.run(
        [sys.executable, "-c", code], capture_output=True, text=True, cwd=Path(__file__).parent.parent
    )

    assert 'pip install "onnx-rerank-integrations[plot]"' in done.stderr
