"""What a run found out, step by step: the facts behind the screen, ``--json`` and the report.

Plain numbers for people; nothing here is signed or sent. The plain pooled answers stand here in the
demo only, since one machine plays every organisation.
"""

from __future__ import annotations

import msgspec


class OrganisationFacts(msgspec.Struct, frozen=True):
    """One member of the consortium."""

    name: str
    roles: list[str]
    re_executes: bool
    key_id: str


class JoinFacts(msgspec.Struct, frozen=True):
    """Step 1."""

    chain: str
    genesis: str
    organisations: list[OrganisationFacts]
    sequencer: str
    k: int
    cosigners: int
    population: str
    budget_nano: int


class SiteFacts(msgspec.Struct, frozen=True):
    """Step 2, one hospital."""

    name: str
    table: str
    rows: int
    missing: dict[str, int]
    out_of_range: dict[str, int]
    duplicates: int | None
    dirty_rate: float
    vault_bytes: int


class LoadFacts(msgspec.Struct, frozen=True):
    """Step 2."""

    title: str
    source: str
    split_rule: str
    unit: str
    population: str
    sites: list[SiteFacts]


class GrantFacts(msgspec.Struct, frozen=True):
    """Step 3."""

    grants: list[str]
    recipient: str
    fields: list[str]
    purpose: str
    legal_basis: str
    not_before: str
    expires: str
    denied_use: str
    denial: str
    denial_zh: str
    rule: str


class GroupFacts(msgspec.Struct, frozen=True):
    """Step 4, one group of the answer, beside the plain one."""

    label: str
    noisy_count: float
    hidden: str
    count: float | None
    mean: float | None
    mean_low: float | None
    mean_high: float | None
    sd: float | None
    histogram: list[float]
    plain_count: int
    plain_mean: float | None
    plain_sd: float | None
    plain_histogram: list[int]


class QueryFacts(msgspec.Struct, frozen=True):
    """Step 4. explained: what was said of the question before it was asked."""

    measure: str
    unit: str
    by: list[str]
    bounds: list[float]
    edges: list[float]
    rows_policy: str
    minimum: int
    groups: list[GroupFacts]
    rho_nano: int
    budget_before_nano: int
    budget_after_nano: int
    noise: list[str]
    epsilons: list[str]
    privacy_unit: str
    sites: list[str]
    messages: int
    bytes_carried: int
    explained: list[str]


class LimitFacts(msgspec.Struct, frozen=True):
    """Step 5."""

    person: str
    limit: str
    handle: str
    proof_bytes: int
    prove_ms: float
    verify_ms: float
    grant: str
    refusal: str


class EligibilityFacts(msgspec.Struct, frozen=True):
    """Step 6. shown, hidden: in words; members: of the active set."""

    person: str
    hospital: str
    insurer: str
    handle: str
    policy: str
    asked: list[str]
    shown: list[str]
    hidden: list[str]
    members: int
    proof_bytes: int
    prove_ms: float
    verify_ms: float
    grant: str
    refusals: list[str]


class PaymentFacts(msgspec.Struct, frozen=True):
    """Step 7, one layer. Amounts as the person's wallet opens them, and as worked out in plain decimals."""

    layer: int
    payer: str
    terms: str
    paid: str
    plain: str
    cap_before: str
    cap_after: str
    proof_bytes: int
    prove_ms: float
    verify_ms: float


class SettleFacts(msgspec.Struct, frozen=True):
    """Step 7. total: of the bill; left: what no layer paid; shown, hidden: in words."""

    person: str
    handle: str
    total: str
    left: str
    payments: list[PaymentFacts]
    agree: bool
    shown: list[str]
    hidden: list[str]
    refusals: list[str]


class ScoreFacts(msgspec.Struct, frozen=True):
    """Step 8."""

    model: str
    hospital: str
    records: int
    features: list[str]
    limit: int
    flagged: int
    plain_flagged: int
    agree: bool
    key_bits: int
    reviewed_by: str
    leaks: list[str]
    refusal: str
    seconds: float


class OffendingFacts(msgspec.Struct, frozen=True):
    """Step 9, a group of rows that may not leave. values: of the columns that others may know."""

    values: list[str]
    rows: int
    persons: int


class ExtractFacts(msgspec.Struct, frozen=True):
    """Step 9, the extract. columns: what leaves, with its mask; persons: the fewest in a group, least: the limit.

    rows: before anybody opted out, and after; withheld: of those, left out as too few alike. example: a row, as the
    recipient has it. recalled: what the recipient says of it once the grant is revoked: "deleted", or "" for not yet.
    """

    grant: str
    recipient: str
    columns: dict[str, str]
    known: list[str]
    rows: int
    rows_after: int
    groups: int
    persons: int
    least: int
    offending: list[OffendingFacts]
    withheld: int
    received: int
    received_columns: list[str]
    example: list[str]
    recalled: str


class ErasureFacts(msgspec.Struct, frozen=True):
    """Step 9, the erasure. files: that the check read; found: what should be gone and is not; told: recipients of
    copies; beyond: what it does not reach, in words."""

    rows: int
    keys: int
    files: int
    found: list[str]
    told: list[str]
    beyond: list[str]


class AtHomeFacts(msgspec.Struct, frozen=True):
    """Step 9. explained, explained_zh: what the recipient may do and why not more, in words."""

    hospital: str
    dataset: str
    patients: int
    explained: list[str]
    explained_zh: list[str]
    opted_out: str
    extract: ExtractFacts
    refusals: list[str]
    erasure: ErasureFacts


class FlowFacts(msgspec.Struct, frozen=True):
    """One row of the data-flow table."""

    time: str
    owner: str
    who: str
    dataset: str
    kind: str
    purpose: str
    grant: str
    outcome: str


class AuditFacts(msgspec.Struct, frozen=True):
    """Step 10."""

    checks: list[str]
    flows: list[FlowFacts]
    tampered_file: str
    tampered_says: str
    blocks: int
    envelopes: int
    operations: int


class DemoFacts(msgspec.Struct, frozen=True):
    """A whole run. seconds: step title -> wall time; elapsed: from the command to the last of these steps."""

    version: str
    started: str
    join: JoinFacts
    load: LoadFacts
    grant: GrantFacts
    query: QueryFacts
    limit: LimitFacts
    eligibility: EligibilityFacts
    settle: SettleFacts
    score: ScoreFacts
    at_home: AtHomeFacts
    audit: AuditFacts
    seconds: dict[str, float]
    elapsed: float
