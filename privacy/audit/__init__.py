"""Who used what: the chained entries, the trail that keeps them, views of it, provenance, pruning."""

from privacy.audit.entries import (
    BATCH_HEADER,
    ENTRY_HEADER,
    LARGEST_BATCH,
    OWN_KINDS,
    START,
    UNKNOWN,
    VERSION,
    AccessBatch,
    AccessKind,
    Entry,
    EntryId,
    EntryProof,
    Outcome,
    Use,
    own_use,
    use_of,
    verify_batch,
    verify_chain,
    verify_entry,
)
from privacy.audit.file import Pruned
from privacy.audit.trail import AuditTrail

__all__ = [
    "AuditTrail",
    "AccessBatch",
    "AccessKind",
    "BATCH_HEADER",
    "ENTRY_HEADER",
    "Entry",
    "EntryId",
    "EntryProof",
    "LARGEST_BATCH",
    "OWN_KINDS",
    "Outcome",
    "Pruned",
    "START",
    "UNKNOWN",
    "Use",
    "VERSION",
    "own_use",
    "use_of",
    "verify_batch",
    "verify_chain",
    "verify_entry",
]
