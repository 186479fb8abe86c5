"""How an account goes on after an op is final: the bureau signs the next one, the holder's wallet follows.

    answer      bureau   signs the next account of each final op, and posts it: the same on every retry
    catch_up    holder   the wallet where the contract has it, after whatever was cut short
    abandon     holder   a step that the contract has refused

What the contract shows is `medveil.credentials.contract`'s file.
"""

from __future__ import annotations

from functools import partial
from pathlib import Path

import msgspec

from medveil.credentials import contract, issuing
from medveil.credentials.folder import Rand
from medveil.credentials.folder import opened as issuer_opened
from medveil.credentials.wallets import opened
from wire.errors import Refused
from zkp import account
from zkp import wallet as wallets
from zkp.bbs_presentation import Issued
from zkp.credentials import ACCOUNT
from zkp.settlement import Settlement
from zkp.wallet import Op, Posted, Prepared, Wallet

Said = dict[str, str | int]


def account_key(op: Op) -> bytes:
    """The key under which an op's account, and the next one, are signed."""
    return op.claim.account_key if isinstance(op, Settlement) else op.redemption.account_key


def answer(folder: Path, passphrase: str, state: Path) -> int:
    """Bureau: sign the next account of every final op that has no answer of this issuer; returns how many.

    The signature follows from op and key: asked again, after a crash or by somebody who lost the file, it is the same.
    Raises Refused for an issuer of other credentials; VerificationError, DecodeError, Unavailable.
    """
    with issuer_opened(folder, passphrase) as kept:
        issuer = kept.read()
    if issuer.kind != "account":
        raise Refused("credential_files.no_accounts", kind=issuer.kind)
    by, count = issuing.keys(issuer), 0
    with contract.opened(state) as open_contract:
        ops: list[Posted] = []
        for posted in open_contract.state.ops:
            if posted.answer is None and account_key(posted.op) == issuer.public:
                signed = account.sign_update(by, posted.op_id, posted.op.following)
                account.check_update(Issued(ACCOUNT, issuer.public), posted.op.following, signed)
                posted, count = msgspec.structs.replace(posted, answer=signed), count + 1
            ops.append(posted)
        if count:
            open_contract.save(msgspec.structs.replace(open_contract.state, ops=tuple(ops)))
    return count


def catch_up(wallet: Path, passphrase: str, state: Path, rand: Rand) -> list[Said]:
    """Holder: bring every account to where the contract has it; returns the accounts as `accounts` does.

    Raises VerificationError for an op that spent a serial of hers and is not of this wallet's seed; Refused for another
    consortium's contract.
    """
    public = contract.read(state)
    with opened(wallet, passphrase) as kept:
        if kept.wallet.chain != public.chain:
            raise Refused("credential_files.other_chain", chain=kept.wallet.chain, offered=public.chain)
        following = wallets.catch_up(kept.wallet, partial(contract.spent, public))
        if following != kept.wallet:
            kept.save(following, rand)
        return accounts(following)


def abandon(wallet: Path, passphrase: str, op: Op, rand: Rand) -> list[Said]:
    """Holder: give up a step that the contract has refused. If it has not, after all, `catch_up` finds that out.

    Raises Refused if no account is at this step.
    """
    with opened(wallet, passphrase) as kept:
        kept.save(wallets.abandoned(kept.wallet, op), rand)
        return accounts(kept.wallet)


def accounts(held: Wallet) -> list[Said]:
    """Secret: what the holder has left in each account, and where its step is: idle, prepared, or final (the bureau's
    answer is not there yet)."""
    found: list[Said] = []
    for one in held.accounts:
        own = one.current.named(ACCOUNT)
        said: Said = {}
        for name in ("payer", "layer", "year", "visits", "cap", "deductible"):
            value = own[name]
            assert isinstance(value, str | int)
            said[name] = value
        step = "idle" if one.step is None else "prepared" if isinstance(one.step, Prepared) else "final"
        found.append(said | {"step": step})
    return found


def payments(held: Wallet) -> list[Said]:
    """Secret: the payments that this wallet made, in order."""
    return [
        {"bill": one.bill.hex(), "payer": one.payer, "layer": one.layer, "year": one.year, "paid": one.paid,
         "deducted": one.deducted}
        for one in held.bookings
    ]  # fmt: skip
