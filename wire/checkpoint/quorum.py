"""The k-of-n rule: when a checkpoint is final.

A checkpoint is final with the sequencer's signature and valid cosignatures of at least k distinct
members that re-execute every block, where k > (n + f) / 2 and f = floor((n - 1) / 3): any two final
checkpoints then share an honest member as long as at most f of the n are not. Members, keys and k are those
of the head's height. A member that signs without replaying may cosign too, and is checked, but does not
count: it would sign a wrong state.

Departure from C2SP, which lets a client ignore signatures of unknown keys: here a stranger's or a
second signature of the same member refuses the note, so that no byte of evidence is unaccounted for.
"""

from __future__ import annotations

from dataclasses import replace

from wire.checkpoint.note import Checkpoint, parse_note, verify_cosignature, verify_log_signature
from wire.checkpoint.trust import TrustFile
from wire.errors import DecodeError, QuorumNotMet, VerificationError


def verify_checkpoint(note_bytes: bytes, trust: TrustFile) -> Checkpoint:
    """The final head that `note_bytes` states, its time included.

    The time (ms UTC) is the latest one that k counted cosigners had reached when they signed, so that
    fewer than k of them cannot move it forward. Raises VerificationError for a note that does not hold,
    QuorumNotMet for too few cosigners.
    """
    try:
        note = parse_note(note_bytes)
    except DecodeError:
        raise VerificationError("checkpoint.bad_note") from None
    if note.checkpoint.origin != trust.origin:
        raise VerificationError("checkpoint.wrong_log", origin=note.checkpoint.origin, expected=trust.origin)
    names = [line.name for line in note.lines]
    if len(set(names)) != len(names):
        raise VerificationError("checkpoint.duplicate_signer")
    if trust.origin not in names:
        raise VerificationError("checkpoint.no_sequencer", sequencer=trust.sequencer)
    members = trust.at(note.checkpoint.size - 1)
    times: list[int] = []
    for line in note.lines:
        if line.name == trust.origin:
            verify_log_signature(members.member(trust.sequencer).keys.cosign.key, note, line)
            continue
        member = members.find(line.name)
        if member is None:
            raise VerificationError("checkpoint.unknown_signer", name=line.name)
        verify_cosignature(member.keys.cosign.key, note, line)
        if member.re_executes:
            times.append(line.time)
    if len(times) < members.k:
        raise QuorumNotMet("checkpoint.quorum", have=len(times), need=members.k)
    times.sort(reverse=True)
    return replace(note.checkpoint, time=times[members.k - 1] * 1000)
