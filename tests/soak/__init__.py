"""The long form of the tests: parts that try until their time is over, and count what they tried and what they found.

Each part is a module of this folder with one function, ``run(seconds, seed)``. It gives its counts by name, such as
``{"inputs": 2000, "typed errors": 1720}``, raises AssertionError at the first thing that isn't as promised, and does
its whole least work even where `seconds` is 0. From `WHOLE` seconds on it tries as many as `docs/reliability.md`
promises, however long that takes. The same seed tries the same things.
"""

WHOLE = 60.0
"""Seconds from which on a part does all that is promised of it."""
