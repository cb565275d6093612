"""Tables of any size: the scores of one `rerank` call, in bounded memory, and resumable. Needs the extra [batch].

columns.py    which column is the query, the text, the group, the id
inputs.py     parquet, JSON lines, a BEIR folder with a TREC run: as blocks of rows
scoring.py    a block's logits, here or in a worker; nulls and failures
ranks.py      ranks within groups: of a table in memory, of any number of rows on disk
outputs.py    one parquet file, or a folder of parts
work.py       what an interrupted job leaves behind, and whether it belongs to the same job
rerank.py     the recipe: `rerank_file`
"""

from onnx_rerank_integrations.extras.needs_extra import needs_extra

with needs_extra("batch", "Reranking a file"):
    from onnx_rerank_integrations.extras.batch.rerank import BatchReport, rerank_file

__all__ = ["BatchReport", "rerank_file"]
