"""What a cascade gains and loses: `python -m benchmarks.cascade COLLECTION --large MODEL [--small MODEL] [--keep N]`.

Both models alone and the cascades of the two reorder the same candidates of a collection in BEIR layout; one after the
other in one process, so compare the times within one table only. Needs the extra [evaluate].
"""

import argparse
from collections.abc import Sequence

from onnx_rerank_integrations import TextCrossEncoder
from onnx_rerank_integrations.extras.evaluate import Evaluation, evaluate
from onnx_rerank_integrations.extras.markdown import markdown_table

KEEP = (50, 30, 20, 10)
LARGE = "large alone"


def measure(collection: str, small: str, large: str, keep: Sequence[int], threads: int) -> Evaluation:
    """Both models alone, then the cascades."""
    cheap, strong = (TextCrossEncoder(model, threads=threads) for model in (small, large))
    cascades = {f"cascade, keeps {number}": TextCrossEncoder.cascade([cheap, strong], [number]) for number in keep}
    return evaluate(collection, {LARGE: strong, "small alone": cheap, **cascades})


def rows(evaluation: Evaluation) -> list[list[str]]:
    """For each system: quality, what it loses against the large model, time per query, how much faster that is."""
    found = [[evaluation.first_stage.name, f"{evaluation.first_stage.mean():.3f}", "", "", ""]]
    slowest = evaluation.models[0].latency(50) or 0.0
    for system in evaluation.models:
        loss = ""
        if system.name != LARGE:
            against = evaluation.comparison(system.name, LARGE)
            loss = f"{against.difference:+.3f} ({against.low:+.3f} to {against.high:+.3f})"
        time = system.latency(50) or 0.0
        found.append([system.name, f"{system.mean():.3f}", loss, f"{time:.1f}", f"{slowest / time:.1f}"])
    return found


def main() -> None:
    parser = argparse.ArgumentParser(prog="python -m benchmarks.cascade", description=__doc__)
    parser.add_argument("collection")
    parser.add_argument("--large", required=True)
    parser.add_argument("--small", default="lexical")
    parser.add_argument("--keep", type=int, action="append")
    parser.add_argument("--threads", type=int, default=1)
    options = parser.parse_args()
    evaluation = measure(options.collection, options.small, options.large, options.keep or KEEP, options.threads)
    head = ["", "nDCG@10", "against large (95 % interval)", "ms a query (median)", "times faster"]
    print(f"{evaluation.collection}, {options.threads} threads, {evaluation.settings['machine']}\n")
    print(markdown_table(head, rows(evaluation), numbers=head[1:]))


if __name__ == "__main__":
    main()
