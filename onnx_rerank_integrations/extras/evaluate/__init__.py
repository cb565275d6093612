"""Does reranking help on your data, with which model, at what latency? Needs the extra [evaluate].

collection.py     a BEIR folder: documents, queries and judgments
table.py          or one CSV file of judged pairs
first_stage.py    the candidates: a TREC run, or BM25 made on the spot
measures.py       nDCG@10 and its like for each query (ir-measures)
significance.py   is a difference more than chance? Pure
results.py        what was found, as data, and the sentence that answers the question
report.py         report.md, results.json, per_query.tsv
picture.py        plot.png
evaluation.py     the recipe: `evaluate`
"""

from onnx_rerank_integrations.extras.evaluate.evaluation import Evaluation, evaluate
from onnx_rerank_integrations.extras.evaluate.results import Comparison, System

__all__ = ["Comparison", "Evaluation", "System", "evaluate"]
