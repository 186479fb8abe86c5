"""A site whose home came back from a backup of before it served any query."""

from __future__ import annotations

from typing import Any

from medveil.gateway import query_history


def forget_served(site: Any) -> None:
    """Take from its vault what it served since, and from memory what it has read there."""
    for name in site.vault.documents("query-served"):
        site.vault.remove_document("query-served", name)
    query_history._served.pop(site, None)
