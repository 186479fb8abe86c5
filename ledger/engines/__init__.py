"""What orders blocks. `Engine` is what all engines offer; the embedded one stands on SQLite."""

from ledger.engines.embedded import EmbeddedEngine
from ledger.engines.engine import Cursor, Engine, Head, TxId, commit, read
from ledger.engines.following import Followed, attend, followed
from ledger.engines.waiting import GroupCommit

__all__ = [
    "Cursor",
    "EmbeddedEngine",
    "Engine",
    "Followed",
    "GroupCommit",
    "Head",
    "TxId",
    "attend",
    "commit",
    "followed",
    "read",
]
