"""Promises of the package, each with a change that breaks it and the tests that must notice.

`tests/test_mutation.py` sees that each snippet is still where it was; where code moved, move the snippet along.
"""

from __future__ import annotations

from dataclasses import dataclass

CORE = "onnx_rerank_integrations/core"


@dataclass(frozen=True)
class Mutant:
    """One way to break one promise.

    Attributes:
        promise: What no longer holds.
        file: Relative to the repository.
        original: A snippet that occurs once in the file.
        mutated: What it becomes.
        tests: pytest's node ids, of which one at least must go red.
    """

    promise: str
    file: str
    original: str
    mutated: str
    tests: tuple[str, ...]

    def applied(self, text: str) -> str:
        """The file's text with the change in it.

        Raises:
            ValueError: The snippet isn't there, or more than once.
        """
        if text.count(self.original) != 1:
            raise ValueError(f"{self.promise}: {self.file} holds {text.count(self.original)} times: {self.original}")
        return text.replace(self.original, self.mutated)


def key_without(option: str) -> Mutant:
    return Mutant(
        f"the cache's key holds {option}",
        f"{CORE}/onnx_cross_encoder.py",
        'leave_out={"warn_truncated"}),',
        f'leave_out={{"warn_truncated", "{option}"}}),',
        ("tests/test_cache.py",),
    )


MUTANTS: tuple[Mutant, ...] = (
    # --- remembered scores
    *map(key_without, ("label", "special_tokens_in_text", "truncation", "long_documents", "max_length", "instruction")),
    Mutant(
        "the cache's key holds the tokenizer",
        f"{CORE}/onnx_cross_encoder.py",
        "digest = content(files.files, ",
        "digest = content([path for path in files.files if path != files.tokenizer], ",
        ("tests/test_cache.py",),
    ),
    Mutant(
        "the cache's key holds external data, configs and heads",
        f"{CORE}/onnx_cross_encoder.py",
        "digest = content(files.files, ",
        "digest = content([files.onnx, files.tokenizer], ",
        ("tests/test_cache.py",),
    ),
    Mutant(
        "NaN isn't remembered",
        f"{CORE}/score_cache.py",
        " for key, logit in new.items() if math.isfinite(logit)}",
        " for key, logit in new.items()}",
        ("tests/test_cache.py",),
    ),
    # --- truncation
    Mutant(
        "truncation_side is read from the tokenizer's config",
        f"{CORE}/tokens/pairs.py",
        'truncation_side or side(config, "truncation_side", loaded.truncation, "right")',
        'truncation_side or "right"',
        ("tests/test_cross_encoder.py",),
    ),
    Mutant(
        "a text that is truncated on the left keeps its end",
        f"{CORE}/tokens/pairs.py",
        'return ids[len(ids) - length :] if self._truncation_side == "left" else ids[:length]',
        "return ids[:length]",
        ("tests/test_tokenization.py",),
    ),
    Mutant(
        "a text that is truncated on the left isn't clipped on the right",
        f"{CORE}/tokens/pairs.py",
        'clip = clip and self._truncation_side == "right"',
        "clip = clip",
        ("tests/test_tokenization.py",),
    ),
    Mutant(
        "windows read a document to its end",
        f"{CORE}/tokens/pairs.py",
        "clip=not whole_documents",
        "clip=True",
        ("tests/test_tokenization.py",),
    ),
    Mutant(
        "a clipped text gives more tokens than are used",
        f"{CORE}/tokens/texts.py",
        "len(found) < needed + CLIP_MARGIN_TOKENS",
        "len(found) < needed",
        ("tests/test_tokenization.py",),
    ),
    Mutant(
        "`truncated` tells of a cut query",
        f"{CORE}/tokens/pairs.py",
        "truncated = capped or query_length < len(query) or document_length < len(document)",
        "truncated = capped or document_length < len(document)",
        ("tests/test_tokenization.py",),
    ),
    Mutant(
        "`truncated` tells of a query that is cut in windows",
        f"{CORE}/tokens/pairs.py",
        "truncated = capped or rest or len(cut_query) < len(query)",
        "truncated = capped or rest",
        ("tests/test_tokenization.py",),
    ),
    Mutant(
        "a cut query keeps its prompt's tail",
        f"{CORE}/tokens/pairs.py",
        "return np.concatenate((ids[: max(length - len(tail), 0)], tail))",
        "return ids[:length]",
        ("tests/test_tokenization.py",),
    ),
    Mutant(
        "no default length is over 8,192 tokens",
        f"{CORE}/model/config.py",
        "min(stated, LARGEST_DEFAULT_LENGTH)",
        "stated",
        ("tests/test_cross_encoder.py",),
    ),
    # --- batches
    Mutant(
        "the pad token is the configured one",
        f"{CORE}/tokens/pairs.py",
        'token_text(config.get("pad_token")) or stored_pad,',
        "stored_pad,",
        ("tests/test_cross_encoder.py",),
    ),
    Mutant(
        "equal ids with other token types are two pairs",
        f"{CORE}/onnx_cross_encoder.py",
        "(one.ids.tobytes(), one.type_ids.tobytes()) for one in encoded",
        "one.ids.tobytes() for one in encoded",
        ("tests/test_tokenization.py",),
    ),
    Mutant(
        "batch_size bounds a batch",
        f"{CORE}/onnx_cross_encoder.py",
        "self.batch_limit or batch_size)",
        "self.batch_limit)",
        ("tests/test_cross_encoder.py",),
    ),
    Mutant(
        "a door passes batch_size on",
        "onnx_rerank_integrations/door.py",
        "            batch_size=self.batch_size,\n",
        "",
        ("tests/test_door.py",),
    ),
    # --- what a model is asked for
    Mutant(
        "a negative label is refused",
        f"{CORE}/scoring.py",
        "if not 0 <= label < labels:",
        "if label >= labels:",
        ("tests/test_cross_encoder.py",),
    ),
    Mutant(
        "the output called logits is preferred",
        f"{CORE}/engine/session.py",
        '(one.name != "logits", is_vector_name(one.name), not one.shape)',
        "(is_vector_name(one.name), not one.shape)",
        ("tests/test_cross_encoder.py",),
    ),
    Mutant(
        "a head beside the graph reads each row's first token",
        f"{CORE}/model/head.py",
        "first = attention_mask.argmax(axis=1)",
        "first = np.zeros(len(attention_mask), dtype=int)",
        ("tests/test_parity.py",),
    ),
    Mutant(
        "a provider that quietly didn't start is an error",
        f"{CORE}/engine/onnxruntime.py",
        "        check_active(self._providers, session.get_providers())\n",
        "",
        ("tests/test_cross_encoder.py",),
    ),
    Mutant(
        "the container's quota bounds the threads",
        f"{CORE}/engine/threads.py",
        "return max(1, min(cpus, _container_quota() or cpus))",
        "return max(1, cpus)",
        ("tests/test_cross_encoder.py",),
    ),
    Mutant(
        "part of a CPU counts as one",
        f"{CORE}/engine/threads.py",
        "return math.ceil(int(quota) / int(period))",
        "return int(quota) // int(period)",
        ("tests/test_cross_encoder.py",),
    ),
    Mutant(
        "a label's place 0 isn't lost at the command line",
        "onnx_rerank_integrations/extras/cli/options.py",
        "and value.isdecimal()",
        'and value.strip("0").isdecimal()',
        ("tests/test_cli.py::test_a_label_is_chosen_by_its_place_or_its_name",),
    ),
    # --- ranking
    Mutant(
        "the threshold comes before top_n",
        f"{CORE}/scoring.py",
        "    if score_threshold is not None:\n        order = order",
        "    order = order[:top_n]\n    if score_threshold is not None:\n        order = order",
        ("tests/test_scoring.py",),
    ),
    Mutant(
        "a window without a score leaves its document without one",
        f"{CORE}/scoring.py",
        "np.maximum.at(highest, owners, logits)",
        "np.fmax.at(highest, owners, logits)",
        ("tests/test_scoring.py",),
    ),
    # --- the hub
    Mutant(
        "a pinned commit is written to no ref",
        f"{CORE}/model/hub.py",
        "if not _COMMIT.fullmatch(self._options.revision) and not self._why_offline:",
        "if not self._why_offline:",
        ("tests/test_hub_download.py",),
    ),
    Mutant(
        "a refused connection isn't tried again",
        f"{CORE}/model/hub.py",
        "if not error.may_pass or",
        "if",
        ("tests/test_hub_download.py",),
    ),
    # --- doors
    Mutant(
        "LlamaIndex's start event comes after its callback",
        "onnx_rerank_integrations/llama_index.py",
        """        with self.callback_manager.event(CBEventType.RERANKING, payload=payload) as event:
            dispatcher.event(ReRankStartEvent(query=query, nodes=nodes, top_n=top_n, model_name=self.model_name))
""",
        """        dispatcher.event(ReRankStartEvent(query=query, nodes=nodes, top_n=top_n, model_name=self.model_name))
        with self.callback_manager.event(CBEventType.RERANKING, payload=payload) as event:
""",
        ("tests/test_llama_index_events.py",),
    ),
    Mutant(
        "LlamaIndex's end event comes before its callback",
        "onnx_rerank_integrations/llama_index.py",
        """            dispatcher.event(ReRankEndEvent(nodes=reranked, tags=truncated))
            event.on_end(payload={EventPayload.NODES: reranked, **truncated})
""",
        """            event.on_end(payload={EventPayload.NODES: reranked, **truncated})
            dispatcher.event(ReRankEndEvent(nodes=reranked, tags=truncated))
""",
        ("tests/test_llama_index_events.py",),
    ),
    # --- graphs
    Mutant(
        "of two processes one makes the optimized copy",
        f"{CORE}/graphs/copies.py",
        '            with locked(entry / "lock"):\n',
        "            if True:\n",
        ("tests/test_optimize.py",),
    ),
    Mutant(
        "values that are scaled stay scaled",
        f"{CORE}/graphs/first_token.py",
        "    for kind, number in values.scales:\n        context = writer.node(kind, context, number)\n",
        "",
        ("tests/test_optimize.py",),
    ),
    Mutant(
        "keys that are scaled stay scaled",
        f"{CORE}/graphs/first_token.py",
        "    for kind, number in keys.scales:\n        query = writer.node(kind, query, number)\n",
        "",
        ("tests/test_optimize.py",),
    ),
    Mutant(
        "a projection that is computed anyway is used",
        f"{CORE}/graphs/first_token.py",
        "    while wasted := plan.wasted_projections():\n        plan = Plan(graph, seen, plan.refused | wasted)\n",
        "",
        ("tests/test_optimize.py",),
    ),
    # --- evaluation
    Mutant(
        "a p-value counts what was found among the samples",
        "onnx_rerank_integrations/extras/evaluate/significance.py",
        "(1 + as_far) / (SAMPLES + 1)",
        "as_far / SAMPLES",
        ("tests/test_evaluate.py",),
    ),
    # --- retrievers and steps, options by other names
    Mutant(
        "the first stage gets the retriever's config",
        "onnx_rerank_integrations/langchain.py",
        "return super().invoke(input, config, configurable=configurable_of(config), **kwargs)",
        "return super().invoke(input, config, configurable={}, **kwargs)",
        ("tests/test_langchain_retriever.py",),
    ),
    Mutant(
        "a first stage that takes no k is never asked for one",
        "onnx_rerank_integrations/langchain.py",
        "if not takes_k(self.retriever):",
        "if False:",
        ("tests/test_langchain_retriever.py",),
    ),
    Mutant(
        "a step's input comes before its config",
        "onnx_rerank_integrations/langchain.py",
        "asked = {**configurable_of(config), **input, **limits_given}",
        "asked = {**input, **limits_given, **configurable_of(config)}",
        ("tests/test_langchain_retriever.py",),
    ),
    Mutant(
        "a dumped step holds its limits",
        "onnx_rerank_integrations/langchain.py",
        'serialized["kwargs"] |= self.model_dump(include=set(LIMITS))',
        "pass",
        ("tests/test_langchain_retriever.py",),
    ),
    Mutant(
        "a retriever's limits begin as its reranker's",
        "onnx_rerank_integrations/langchain.py",
        'options = {**options["reranker"].model_dump(include=set(LIMITS)), **options}',
        "options = {**options}",
        ("tests/test_langchain_retriever.py",),
    ),
    Mutant(
        "another library's name of an option leads to ours",
        "onnx_rerank_integrations/core/options.py",
        "meant = PEERS_NAMES.get(name)",
        "meant = None",
        ("tests/test_door.py",),
    ),
    Mutant(
        "one field as text is a list of one",
        "onnx_rerank_integrations/door.py",
        'return [value] if isinstance(value, str) and value not in ("", "content") else value',
        "return value",
        ("tests/test_door.py",),
    ),
    Mutant(
        "a field that no document has is told once",
        "onnx_rerank_integrations/door.py",
        "self._missed_fields.update(missing)",
        "pass",
        ("tests/test_door.py",),
    ),
)
