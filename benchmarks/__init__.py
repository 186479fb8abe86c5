"""Side-by-side runs against peers and against the plain computation.

``python -m benchmarks [NAME ...] [--json] [--quick] [--compare] [--save]`` from the checkout. One file a
bench; each yields figures, measured by `benchmarks.measure`: medveil and the peer in turn in one run,
medians of all rounds, the ratio of each round's pair. A ratio holds where it was taken; a value is worth
comparing on the same machine only, which is why every figure names machine and commit.
"""
