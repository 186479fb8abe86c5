"""How many sites a secure sum takes: what the ledger's contract, the sites and a verifier must agree on."""

from __future__ import annotations

from collections.abc import Iterable

FEWEST_SITES = 3
"""With two sites, each would learn the other's number by subtracting its own."""
FEWEST_APART = 3
"""Sets of sites that differ by fewer are near: two sums over them, subtracted, are about one site or two."""


def threshold(sites: int) -> int:
    """t = floor(2n / 3) + 1 of n sites: the fewest whose vectors are summed, and without whom nothing opens."""
    return 2 * sites // 3 + 1


def apart(sites: Iterable[str], others: Iterable[str]) -> tuple[str, ...]:
    """The sites in one of two sets only, sorted, where the sets are near: one or two. Else ()."""
    found = sorted(set(sites) ^ set(others))
    return tuple(found) if len(found) < FEWEST_APART else ()
