"""One client's masking with the primitives of Flower's SecAgg+, in its own environment (`make peers`).

What `flwr.client.mod.secure_aggregation` does to a vector that is quantised already: a seed by ECDH for each other
client and one of its own, a mask of each seed, added or taken away, mod 2^32. Left out, so that the comparison favours
it: messages, signatures, shares, quantisation. Its masks have 32 bits of seed and 32-bit cells.

Commands: ``mask CELLS PARTIES`` (answer: seconds by the clock, and of the processor), ``version``.
"""

from __future__ import annotations

import os
import sys
from importlib.metadata import version
from time import perf_counter, process_time

import numpy as np
from flwr.common.secure_aggregation.crypto.symmetric_encryption import generate_shared_key
from flwr.common.secure_aggregation.ndarrays_arithmetic import (
    parameters_addition,
    parameters_mod,
    parameters_subtraction,
)
from flwr.common.secure_aggregation.secaggplus_utils import pseudo_rand_gen
from flwr.supercore.primitives.asymmetric import generate_key_pairs

RANGE = 2**32


def mask(cells: str, parties: str) -> str:
    """Seconds to mask a vector of int64."""
    shape = [(int(cells),)]
    vector = [np.arange(int(cells), dtype=np.int64) % 1000]
    others = [generate_key_pairs() for _ in range(int(parties) - 1)]
    began = perf_counter(), process_time()
    secret, _ = generate_key_pairs()
    vector = parameters_addition(vector, pseudo_rand_gen(os.urandom(32), RANGE, shape))
    for number, (_, public) in enumerate(others):
        stream = pseudo_rand_gen(generate_shared_key(secret, public), RANGE, shape)
        vector = (parameters_addition if number % 2 else parameters_subtraction)(vector, stream)
    parameters_mod(vector, RANGE)
    return f"{perf_counter() - began[0]} {process_time() - began[1]}"


def main() -> None:
    """Answer commands until standard input ends."""
    for line in sys.stdin:
        command, *words = line.split()
        print(version("flwr") if command == "version" else mask(*words), flush=True)


if __name__ == "__main__":
    main()
