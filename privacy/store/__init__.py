"""The store of everything at home: SQLite or PostgreSQL behind SQLAlchemy Core, and one process's own SQLite file."""

from privacy.store.database import Database, Schema, Step, mark
from privacy.store.engine import Application
from privacy.store.owned_file import Store

__all__ = ["Application", "Database", "Schema", "Step", "Store", "mark"]
