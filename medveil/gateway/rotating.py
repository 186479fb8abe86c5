"""Rotating an organisation's keys: drawn and kept at home, then announced on the ledger for a height to come.

    organisation -> ledger   RotateKeys      the new keys, each shown to be held, and from which block on

From that block on its envelopes, cosignatures, messages and certificates are under the new keys; nothing restarts.
What is under way goes on with the keys of the height at which it began.
"""

from __future__ import annotations

from ledger.contracts.membership import keys_at, pending
from ledger.contracts.organisations import LONGEST_NOTICE, RotateKeys, possession_message
from medveil.gateway.ledger_account import FinalState
from medveil.gateway.organisation import Organisation
from medveil.gateway.steps import Steps
from wire.canonical import Wire
from wire.domains import KEY_POSSESSION
from wire.errors import Refused
from wire.identifiers import Hash
from wire.keyset import Member, SignatureKey

NOTICE = 10
"""Blocks from the envelope that announces new keys to the first under them, unless said otherwise."""
_ATTEMPTS = 5


class Drawn(Wire, frozen=True, tag="medveil.keys_drawn"):
    """The new generation, by its public envelope key."""

    envelope: Hash


async def rotate(organisation: Organisation, steps: Steps, notice: int = NOTICE) -> int:
    """Have all five keys of the organisation changed; returns the first height of the new ones.

    notice: blocks ahead, at least 2. Raises Refused as the contract does (a rotation is under way, or was lately),
    ValueError for a notice that is too short.
    """
    if notice < 2:
        raise ValueError("new keys are announced at least two blocks ahead")

    async def draw() -> Drawn:
        state, keys = await organisation.account.caught_up(), organisation.keys
        if pending(state.view(), organisation.name) is not None:
            raise Refused("organisations.rotation_pending", organisation=organisation.name)
        present = keys_at(state.view(), organisation.name, state.height)
        # What was drawn in vain (a kill, a refusal) is used before more is drawn: peers know a gateway by its present
        # key or by the newest, so that no other may be newer than the one that is announced.
        drawn_before = present is not None and keys.newest.envelope.key != present.envelope.key
        return Drawn((keys.newest if drawn_before else keys.draw()).envelope.key.public)

    drawn = await steps.once("keys", Drawn, draw)
    generation = next(one for one in organisation.keys.generations if one.envelope.key.public == drawn.envelope)
    own = organisation.trust.member(organisation.name)
    asked = Member(own.organisation, own.roles, generation.key_set(), own.re_executes, own.tier)
    message = possession_message(organisation.trust.genesis_hash, asked)
    held = tuple(signer.sign(KEY_POSSESSION, message) for signer in generation.signers)

    def named(state: FinalState) -> SignatureKey | None:
        """The new envelope key as the ledger has it, if it has."""
        keys = keys_at(state.view(), organisation.name, state.height + LONGEST_NOTICE)
        return keys.envelope if keys is not None and keys.envelope.key == generation.envelope.key else None

    for attempt in range(_ATTEMPTS):
        height = (await organisation.account.caught_up()).height + notice
        try:
            await organisation.ensure(lambda state: named(state) is not None, RotateKeys(asked.keys, height, held))
            break
        except Refused as error:  # others wrote so much meanwhile that the height had passed
            if error.code != "organisations.rotation_height" or attempt == _ATTEMPTS - 1:
                raise
    entry = named(organisation.account.state)
    assert entry is not None  # it stands, or there was a refusal
    return entry.valid_from
