"""The command: `python -m tests.mutation [WORDS ...]`, all mutants or those whose promise holds one of the words."""

from __future__ import annotations

import sys
from collections.abc import Sequence

from tests.mutation.mutants import MUTANTS, Mutant
from tests.mutation.tree import Outcome, Tree, copied_tree


def main(words: Sequence[str]) -> int:
    """Prints killed, survived or not run for each mutant; 0 where all were killed."""
    chosen = [one for one in MUTANTS if not words or any(word in one.promise for word in words)]
    with copied_tree() as tree:
        if problem := red_without_a_mutant(tree, chosen):
            print(f"the tests don't pass as they are:\n{problem}", file=sys.stderr)
            return 2
        outcomes = [report(tree, mutant) for mutant in chosen]
    killed = outcomes.count("killed")
    print(f"{killed} of {len(chosen)} killed")
    return 0 if killed == len(chosen) else 1


def red_without_a_mutant(tree: Tree, mutants: Sequence[Mutant]) -> str:
    """What the mutants' tests say of the sound package where they aren't green; else nothing."""
    tests = sorted({test for mutant in mutants for test in mutant.tests})
    outcome, printed = tree.outcome(tests, timeout=1800)
    return "" if outcome == "survived" else printed


def report(tree: Tree, mutant: Mutant) -> Outcome:
    text = (tree.root / mutant.file).read_text(encoding="utf-8")
    with tree.changed(mutant.file, mutant.applied(text)):
        outcome, printed = tree.outcome(mutant.tests)
    print(f"{outcome:9} {mutant.promise}", flush=True)
    if outcome != "killed":
        print(f"          {mutant.file}: {' '.join(mutant.mutated.split())[:100]}\n{printed[-600:]}", flush=True)
    return outcome


if __name__ == "__main__":
    sys.exit(main(sys.argv[1:]))
