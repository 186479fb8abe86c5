"""A gateway's client: what programs, notebooks and the command line use. `Client` blocks, `AsyncClient` awaits."""

from medveil.client.claims import Feature
from medveil.client.client import AsyncClient, Client
from medveil.client.credentials import Program, Session
from medveil.client.datasets import ColumnClass
from medveil.client.extracts import Risk
from medveil.client.filters import column
from medveil.client.grants import Terms, Use
from medveil.client.queries import Question
from medveil.client.releases import Released
from medveil.client.written import Written
from mpc.query_document import Grouped as Group
from mpc.query_document import Measured as Measure

__all__ = [
    "AsyncClient",
    "Client",
    "ColumnClass",
    "Feature",
    "Group",
    "Measure",
    "Program",
    "Question",
    "Released",
    "Risk",
    "Session",
    "Terms",
    "Use",
    "Written",
    "column",
]
