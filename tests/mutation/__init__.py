"""Breaks the package on purpose, one promise at a time, to see that a test goes red: `python -m tests.mutation`."""
