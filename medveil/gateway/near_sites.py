"""What a site does about queries that would give single sites away next to an earlier one."""

from __future__ import annotations

from typing import Literal, NamedTuple


class NearSites(NamedTuple):
    """What a site does about a query next to an earlier one over a set of sites that differs by one or two.

    rosters: refuse it, or let it be labelled; survivors: let the release be labelled, or stop before shares are sent.
    """

    rosters: Literal["refuse", "label"] = "refuse"
    survivors: Literal["label", "stop"] = "label"
