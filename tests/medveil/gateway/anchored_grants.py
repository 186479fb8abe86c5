"""An op that changes the ledger's state, and how to see that it took effect."""

from __future__ import annotations

import secrets
from typing import Any

from ledger.contracts import AnchorGrant, grants


def anchoring(world: Any, grant: str) -> AnchorGrant:
    """Some op that changes the state."""
    return AnchorGrant(grant, secrets.token_bytes(32), 0, world.now() + 1_000_000, 0)


def anchored(state: Any, grant: str) -> bool:
    """Whether it took effect."""
    return state.get(grants.grant_key(grant), grants.GrantState) is not None
