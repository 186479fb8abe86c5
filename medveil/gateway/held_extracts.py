"""Extracts that an organisation holds: what others made for it under their grants.

The sealed file stands in the home; it is opened in memory, for whoever may, until the day by which it must be deleted
or the grant is revoked, or handed out as it is. Either is noted in the organisation's own audit trail, as something
done at home. Not in backups: what was deleted does not come back, and its holder can make another.
"""

from __future__ import annotations

import threading
from collections.abc import Callable, Iterator
from contextlib import ExitStack, contextmanager
from pathlib import Path
from typing import Annotated, BinaryIO, NamedTuple
from weakref import WeakKeyDictionary

import msgspec
import pyarrow as pa

from ledger.contracts import access
from medveil.extracts.opening import Recipient
from medveil.gateway.extract_bytes import failed, flush, remove
from medveil.gateway.granting import held as held_grants
from medveil.gateway.made_extracts import FOLDER
from medveil.gateway.organisation import Clock, Organisation
from medveil.gateway.recalling import arriving, is_recalled
from medveil.gateway.use_state import anchored
from privacy.audit import own_use
from privacy.copies.encrypted_parquet import check_file
from privacy.copies.extract_file import ExtractFacts
from privacy.copies.extracts import SUFFIX
from privacy.grants.terms import CheckedGrant
from wire.canonical import Wire, decode, encode
from wire.dates import Instant, format_instant
from wire.domains import EXTRACT_OPENING, keyed
from wire.errors import ConsentDenied, DecodeError, MedveilError, Refused, VerificationError

HELD = "held"
"""The folder of held extracts beside those that are made."""
DUE = "due"
"""Why an extract was deleted: its day had come."""

PART_MS = 8 * 86_400_000
"""How long a part is kept to which nothing comes, and a whole file that cannot be listed, in ms: no delivery goes on
after that, since the post has thrown its messages away."""

_HELD = "extract-held"

_beginning = threading.Lock()
_under_way: WeakKeyDictionary[Organisation, set[int]] = WeakKeyDictionary()
"""Intents of openings that this process will end."""


class HeldExtract(Wire, frozen=True, tag="medveil.held_extract"):
    """An extract that came here. arrived: when. deleted: when, or 0; why: in a word or a code, or ""."""

    facts: ExtractFacts
    arrived: Instant
    deleted: Instant = 0
    why: Annotated[str, msgspec.Meta(max_length=100)] = ""

    @property
    def extract(self) -> bytes:
        """Its id."""
        return self.facts.cover.extract

    @property
    def issuer(self) -> str:
        """Who made it."""
        return self.facts.cover.issuer


def held_folder(organisation: Organisation) -> Path:
    """Where extracts stand that this organisation holds; it is there when this returns. Raises Unavailable."""
    folder = organisation.folder / FOLDER / HELD
    try:
        folder.mkdir(mode=0o700, parents=True, exist_ok=True)
    except OSError as error:
        raise failed(folder, error) from None
    return folder


def held_path(organisation: Organisation, extract: bytes) -> Path:
    """Where the sealed file of a held extract stands."""
    return held_folder(organisation) / f"{extract.hex()}{SUFFIX}"


def known(organisation: Organisation, extract: bytes) -> HeldExtract | None:
    """What is known of an extract that came here, deleted ones too."""
    found = organisation.vault.find_document(_HELD, extract.hex())
    return None if found is None else decode(HeldExtract, found)


def ever_held(organisation: Organisation) -> tuple[HeldExtract, ...]:
    """All that came here, deleted ones too, the oldest first."""
    vault = organisation.vault
    found = (decode(HeldExtract, vault.document(_HELD, name)) for name in vault.documents(_HELD))
    return tuple(sorted(found, key=lambda one: (one.arrived, one.extract)))


def held(organisation: Organisation) -> tuple[HeldExtract, ...]:
    """What is held now: its file is here. After a restore from a backup there is none of before."""
    return tuple(
        one for one in ever_held(organisation) if not one.deleted and held_path(organisation, one.extract).exists()
    )


def held_of(organisation: Organisation, extract: bytes) -> HeldExtract:
    """One that is held. Raises Refused: never here (extracts.unknown), or deleted."""
    one = known(organisation, extract)
    if one is None:
        raise Refused("extracts.unknown", extract=extract.hex())
    if one.deleted or not held_path(organisation, extract).exists():
        raise Refused("gateway.extract_deleted", extract=extract.hex())
    return one


def keep_held(organisation: Organisation, one: HeldExtract) -> None:
    """Note an extract whose file is here."""
    organisation.vault.put_document(_HELD, one.extract.hex(), encode(one))


def forget(organisation: Organisation, extract: bytes, why: str, clock: Clock) -> HeldExtract:
    """Delete a held extract's file, and note when and why; one that is deleted stays as it is noted.

    What somebody opened before, and where that went, this does not reach. Raises Refused where it was never here,
    Unavailable (disk).
    """
    with arriving:
        one = known(organisation, extract)
        if one is None:
            raise Refused("extracts.unknown", extract=extract.hex())
        path = held_path(organisation, extract)
        remove(path)
        flush(path.parent)  # it does not come back with a crash
        if not one.deleted:
            one = msgspec.structs.replace(one, deleted=clock(), why=why[:100])
            keep_held(organisation, one)
        return one


class Tidied(NamedTuple):
    """What a round over the held extracts came to. gone: deleted, their day had come; listed: files that had been left
    unlisted; trouble: the first that could not be deleted, and why not."""

    gone: tuple[HeldExtract, ...] = ()
    listed: int = 0
    trouble: MedveilError | None = None


def tidy_held(organisation: Organisation, clock: Clock) -> Tidied:
    """Delete every extract whose day has come, list what was cut short before it was, remove what broken deliveries
    left. What cannot be deleted keeps nothing else waiting. Call it in a thread."""
    gone: list[HeldExtract] = []
    listed, trouble = 0, None
    try:
        ever, unlisted = ever_held(organisation), _unlisted(organisation)
    except MedveilError as error:
        return Tidied(trouble=error)
    for one in ever:
        try:
            if one.deleted:  # a crash may have brought the file back
                remove(held_path(organisation, one.extract))
            elif clock() >= one.facts.delete_by:
                gone.append(forget(organisation, one.extract, DUE, clock))
        except MedveilError as error:
            trouble = trouble or error
    for path in unlisted:
        try:
            listed += _settle(organisation, path, clock)
        except MedveilError as error:
            trouble = trouble or error
    return Tidied(tuple(gone), listed, trouble)


def _unlisted(organisation: Organisation) -> tuple[Path, ...]:
    """Parts, and whole files that no note knows: of a process that ended before it could note them."""
    folder = held_folder(organisation)
    try:
        found = [path for path in folder.iterdir() if path.is_file()]
    except OSError as error:
        raise failed(folder, error) from None
    noted = {f"{name}{SUFFIX}" for name in organisation.vault.documents(_HELD)}
    return tuple(path for path in found if path.name not in noted)


def _settle(organisation: Organisation, path: Path, clock: Clock) -> bool:
    """List a file if it is an extract that may be held; else remove it when it is old. Whether it is listed now."""
    if not path.name.startswith(".") and _listed(organisation, path, clock):
        return True
    if clock() - _changed(path) > PART_MS:
        remove(path)
    return False


def _listed(organisation: Organisation, path: Path, clock: Clock) -> bool:
    try:
        facts = _recipient(organisation).inspect(path)
        extract = facts.cover.extract
        if path != held_path(organisation, extract):
            return False
        grant = check_held(organisation, facts.cover.issuer, facts.grant, facts.dataset, clock())
        facts = grant.check(path, extract)
    except (Refused, DecodeError, VerificationError):  # not, or not yet: the ledger may not be known here
        return False
    with arriving:
        if known(organisation, extract) is not None or not path.exists():  # its own flow has gone on meanwhile
            return False
        keep_held(organisation, HeldExtract(facts, clock()))
    return True


def _changed(path: Path) -> int:
    """When something was written to a file, or it was given its name, in ms."""
    try:
        return path.stat().st_ctime_ns // 1_000_000
    except OSError:  # it is gone
        return 2**62


# --- what is taken ------------------------------------------------------------------------------


class HeldGrant(NamedTuple):
    """The grant under which an extract is taken. recipient: who checks."""

    organisation: Organisation
    grant: CheckedGrant

    def check(self, path: Path, extract: bytes) -> ExtractFacts:
        """Check a whole file: cover, seal, signature, the body's hash, and that it says what the grant says.

        Raises VerificationError, Refused, DecodeError, Unavailable. Call it in a thread.
        """
        organisation, terms = self.organisation, self.grant.terms
        facts = _recipient(organisation).inspect(path)
        same = (facts.cover.extract, facts.cover.issuer, facts.grant, facts.commitment, facts.dataset) == (
            extract,
            terms.issuer,
            terms.grant,
            self.grant.commitment,
            terms.dataset,
        )
        if not same or facts.delete_by > terms.delete_by:
            raise VerificationError("extracts.altered", issuer=terms.issuer)
        chain = organisation.account.state.get(access.chain_key(terms.issuer), access.ChainState)
        if chain is None or chain.last < facts.audit:
            raise VerificationError("gateway.extract_not_announced", issuer=terms.issuer, sequence=facts.audit)
        check_file(path, facts.length, facts.body)
        return facts


def check_held(organisation: Organisation, issuer: str, grant: str, dataset: str, at: int) -> HeldGrant:
    """The grant of `issuer` that this organisation holds and that lets extracts of the dataset come.

    Raises Refused where there is none, or it is over: nobody fills this organisation's disk without one.
    """
    for one in held_grants(organisation):
        terms = one.terms
        if (terms.issuer, terms.grant, terms.dataset) == (issuer, grant, dataset) and "extract" in terms.uses:
            if at >= terms.delete_by or _revoked(organisation, grant):
                break
            return HeldGrant(organisation, one)
    raise Refused("gateway.extract_without_grant", grant=grant, organisation=issuer)


def _revoked(organisation: Organisation, grant: str) -> bool:
    found = anchored(organisation, [grant])
    return not found or found[0].revoked


# --- what is opened -----------------------------------------------------------------------------


def openable(organisation: Organisation, extract: bytes, clock: Clock) -> HeldExtract:
    """One that is held and may be opened, here or as it came: a sealed file is opened by whoever has the keys.

    Raises Refused (not held, past its day, to be deleted), ConsentDenied (the grant was revoked). Call it in a thread,
    once the ledger of today is known.
    """
    one = held_of(organisation, extract)
    facts = one.facts
    if clock() >= facts.delete_by:
        raise Refused("extracts.due", grant=facts.grant, delete_by=format_instant(facts.delete_by))
    if _revoked(organisation, facts.grant):
        raise ConsentDenied("gateway.grant_gone", grant=facts.grant, dataset=facts.dataset)
    if is_recalled(organisation, one.issuer, extract):  # listed after its notice came: the next round deletes it
        raise Refused("gateway.extract_recalled", extract=extract.hex())
    return one


def open_held(
    organisation: Organisation, extract: bytes, clock: Clock, taken: Callable[[str], None] = lambda step: None
) -> tuple[ExtractFacts, pa.Table]:
    """Open a held extract in memory: what its issuer signed, and the rows (secret). Call it in a thread.

    Noted in the audit trail before, and how it went after. Raises as `openable`, what opening raises; Unavailable where
    it cannot be noted: then nothing is opened.
    """
    one = openable(organisation, extract, clock)
    with _noted(organisation, one):
        taken("intent")
        found = _recipient(organisation).open(held_path(organisation, extract), clock())
        if found[0] != one.facts:
            raise VerificationError("extracts.altered", issuer=one.issuer)
    return found


def hand_out(organisation: Organisation, extract: bytes, clock: Clock) -> BinaryIO:
    """The sealed file of a held extract, for whoever opens it outside the gateway; the caller closes it.

    Noted as `open_held` notes: who has it can read it, and nothing tells when. Raises as `openable`; Unavailable (disk,
    or it cannot be noted). Call it in a thread.
    """
    one = openable(organisation, extract, clock)
    path = held_path(organisation, extract)
    with ExitStack() as opened:
        with _noted(organisation, one):
            try:
                whole = opened.enter_context(path.open("rb"))
            except OSError as error:
                raise failed(path, error) from None
        opened.pop_all()
        return whole


@contextmanager
def _noted(organisation: Organisation, one: HeldExtract) -> Iterator[None]:
    """Note in the trail that an extract is about to be opened, and how that went."""
    trail, about = organisation.audit, keyed(organisation.salt_key, EXTRACT_OPENING, one.extract)
    with _beginning:
        intent = trail.intent(own_use(organisation.name, one.facts.dataset, "opening", about))
        under_way = _under_way.setdefault(organisation, set())
        under_way.add(intent)
    try:
        yield
    except BaseException:  # an intent that nothing ends would hold the pruning of the trail for good
        trail.outcome(intent, "failed")
        raise
    else:
        trail.outcome(intent, "done")
    finally:
        under_way.discard(intent)


def close_openings(organisation: Organisation) -> int:
    """End the intents of openings that a process was killed in: as failed, though rows may have left it. How many."""
    trail, ended = organisation.audit, 0
    with _beginning:
        for intent in trail.unfinished():
            (entry,) = trail.entries(intent, intent)
            if entry.use.kind == "opening" and intent not in _under_way.get(organisation, ()):
                trail.outcome(intent, "failed")
                ended += 1
    return ended


def _recipient(organisation: Organisation) -> Recipient:
    own = [generation.seal for generation in organisation.keys.generations]
    return Recipient(organisation.name, own, organisation.trust)
