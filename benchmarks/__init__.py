"""Speed and memory of this package and its peers, same weights, threads and texts: `python -m benchmarks --help`."""
