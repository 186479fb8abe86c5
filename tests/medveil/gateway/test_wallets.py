"""The wallets that a hospital's gateway hosts: opened when they are used, called after nobody, gone with an erasure."""

from __future__ import annotations

import errno
import shutil
from contextlib import suppress
from datetime import date
from pathlib import Path
from typing import Any

import pyarrow as pa
import pytest

from medveil.gateway import erasing, person_view
from medveil.gateway.wallets import HeldBill, Wallet, Wallets, take_over
from privacy.erasure import steps
from privacy.erasure.brought_back import erase_again
from privacy.erasure.check import CheckReport
from privacy.legal_holds import LegalHold, lift_hold, place_hold
from privacy.retention import ZONE
from wire.canonical import encode
from wire.dates import NO_END, date_of, day_at, day_of
from wire.errors import Refused, Unavailable
from zkp.bill_limit import Presentation

from .test_eligibility_cut_short import Play

ME, OTHER = "person-1", "person-2"


def test_wallets_are_opened_again(play: Play) -> None:
    async def story(world: Any) -> None:
        bill = await world.bill()
        world.wallets.close()
        again = Wallets(world["hospital-1"])
        assert again.of("person-1").bills() == (bill.handle,)
        assert [held.bill for held in again.bills()] == [bill]
        again.close()

    play(story)


def test_a_hospital_of_many_persons_holds_few_files(play: Play, monkeypatch: pytest.MonkeyPatch) -> None:
    """Four files a wallet: with all of them open, a few hundred persons would take what a process may have."""
    monkeypatch.setattr("medveil.gateway.wallets.MOST_OPEN", 2)

    async def story(world: Any) -> None:
        wallets = world.wallets
        bill = await world.bill()
        with wallets.opened("person-1") as used:
            for number in range(2, 7):
                await world.bill(person=f"person-{number}")
            assert used.bills() == (bill.handle,)
        for number in range(2, 7):
            assert len(wallets.of(f"person-{number}").bills()) == 1
        files = [str(fd.resolve()) for fd in Path("/proc/self/fd").iterdir()]
        last = {wallets.of(f"person-{number}").folder.name for number in (5, 6)}
        assert {name.split("/wallets/")[1].split("/")[0] for name in files if "/wallets/" in name} == last

    play(story)


def test_a_wallet_that_was_half_made_is_made_again(play: Play, monkeypatch: pytest.MonkeyPatch) -> None:
    async def story(world: Any) -> None:
        replace = Path.replace

        class Gone(BaseException):
            pass

        def killed(path: Path, target: Path) -> None:
            raise Gone

        monkeypatch.setattr(Path, "replace", killed)
        with pytest.raises(Gone):
            world.wallets.of("person-9")
        monkeypatch.setattr(Path, "replace", replace)
        world.wallets.sweep()  # it is not lost: its passphrase was kept first
        assert world.wallets.of("person-9").bills() == ()

    play(story)


def test_no_file_and_no_name_says_whose_a_wallet_is(play: Play) -> None:
    async def story(world: Any) -> None:
        await world.bill(person="person-9")
        world.wallets.close()
        found = [path for path in world["hospital-1"].folder.rglob("*") if "wallet" in path.as_posix()]
        assert sum(path.is_file() for path in found) >= 3
        keyed = world["hospital-1"].vault.person_id("person-9").hex()
        for path in found:
            assert "person-9" not in path.name and keyed not in path.name
            assert not path.is_file() or b"person-9" not in path.read_bytes()

    play(story)


@pytest.mark.parametrize("person", ["", "   ", "x" * 201, "\udc80"])
def test_what_names_nobody_has_no_wallet(play: Play, person: str) -> None:
    async def story(world: Any) -> None:
        with pytest.raises(Refused) as caught:
            world.wallets.of(person)
        assert caught.value.code == "gateway.bad_person"
        assert not (world["hospital-1"].folder / "wallets").exists()

    play(story)


@pytest.mark.parametrize("person", ["../x", "张三", "11010119900307451X", "P 7", "x" * 200])
def test_a_person_is_whatever_tables_call_it(play: Play, person: str) -> None:
    async def story(world: Any) -> None:
        bill = await world.bill(person=person)
        assert world.wallets.of(person).bills() == (bill.handle,)
        assert [path.name for path in (world["hospital-1"].folder / "wallets").iterdir()] == [
            world.wallets.of(person).folder.name
        ]
        assert person not in repr(world.wallets.bills())

    play(story)


# ---- erased


def erase(world: Any, person: str = ME) -> Any:
    hospital = world["hospital-1"]
    planned = erasing.plan(hospital, person, world.now())
    snapshots = world.tables(hospital).snapshots
    return erasing.apply(hospital, planned.name, world.now, snapshots=snapshots, wallets=world.wallets)


def hold(world: Any) -> LegalHold:
    hospital = world["hospital-1"]
    return LegalHold("case-1", hospital.vault.person_id(ME), "", "case 1", day_at(world.now(), ZONE), NO_END)


def folders(world: Any) -> set[str]:
    return {path.name for path in (world["hospital-1"].folder / "wallets").iterdir()}


def checked(world: Any, name: str) -> CheckReport:
    hospital = world["hospital-1"]
    return erasing.check(hospital, erasing.receipt_of(hospital, name, world.now()), hospital.folder, markers=[ME])


async def answered(world: Any, bill: Any) -> str:
    """The code of the hospital's answer about a bill; empty for a proof."""
    answer, _ = await world.limit_checked(world.request(bill))
    return "" if isinstance(answer, Presentation) else str(answer.facts["reason"])


def open_of(folder: str) -> int:
    """How many files of a wallet this process has open."""
    links = [path.readlink().as_posix() for path in Path("/proc/self/fd").iterdir() if path.is_symlink()]
    return sum(f"/{folder}/" in link for link in links)


def test_an_erasure_takes_the_wallet_and_keeps_the_note_of_a_bill_out_of_use(play: Play) -> None:
    async def story(world: Any) -> None:
        bill, other = await world.bill(), await world.bill(person=OTHER)
        await world.grant_proofs()
        assert await answered(world, bill) == ""
        (mine,) = {world.wallets.of(ME).folder.name}
        assert open_of(mine) > 0
        done = erase(world)
        year = date_of(day_at(world.now(), ZONE)).year
        assert [(key.dataset, key.rows) for key in done.plan.erase] == [("document.wallet", 1)]
        assert [(key.dataset, key.why, key.until) for key in done.plan.restrict] == [
            ("document.bill", ("retention",), day_of(date(year + 30, 12, 31)))
        ]
        assert mine not in folders(world) and open_of(mine) == 0
        assert await answered(world, bill) == "gateway.bill_closed"
        assert world.ended("hospital-1")[-1] == "aborted"
        assert await answered(world, other) == ""
        assert [held.bill for held in world.wallets.bills()] == [other]
        assert checked(world, done.name).leftovers == ()
        assert {one.dataset for one in done.traces} == {"document.bill", "document.wallet"}

    play(story)


def test_what_a_hold_keeps_of_a_wallet_proves_nothing_until_it_is_let_go(play: Play) -> None:
    async def story(world: Any) -> None:
        hospital, bill = world["hospital-1"], await world.bill()
        await world.grant_proofs()
        wallet = world.wallets.of(ME).folder.name
        place_hold(hospital.vault, hold(world))
        done = erase(world)
        assert {key.dataset for key in done.plan.restrict} == {
            "document.bill",
            "document.wallet",
        } and not done.plan.erase
        assert wallet in folders(world) and open_of(wallet) == 0
        assert await answered(world, bill) == "gateway.bill_closed"
        assert wallet in folders(world)
        lift_hold(hospital.vault, "case-1", day_at(world.now(), ZONE))
        (due,) = erasing.plan_due(hospital, world.now() + 2 * 86_400_000)
        assert [key.dataset for key in due.plan.erase] == ["document.wallet"]
        erasing.apply(hospital, due.name, world.now, wallets=world.wallets)
        assert wallet not in folders(world)

    play(story)


def test_a_proof_that_was_made_does_not_leave_after_the_erasure(play: Play) -> None:
    async def story(world: Any) -> None:
        bill, real = await world.bill(), world.wallets.prove
        await world.grant_proofs()

        def prove(person: str, request: Any) -> Presentation:
            made = real(person, request)
            erase(world)
            return made

        world.wallets.prove = prove
        assert await answered(world, bill) == "gateway.bill_closed"
        assert world.ended("hospital-1")[-1] == "aborted"

    play(story)


def test_a_wallet_in_use_is_closed_by_whoever_uses_it(play: Play) -> None:
    async def story(world: Any) -> None:
        bill = await world.bill()
        with world.wallets.opened(ME) as wallet:
            folder = wallet.folder.name
            erase(world)
            assert wallet.bills() == (bill.handle,) and folder not in folders(world)
        assert open_of(folder) == 0

    play(story)


def test_who_is_billed_after_an_erasure_gets_another_wallet(play: Play) -> None:
    """And what a hold keeps is not touched by it."""

    async def story(world: Any) -> None:
        hospital, bill = world["hospital-1"], await world.bill()
        await world.grant_proofs()
        first = world.wallets.of(ME).folder.name
        place_hold(hospital.vault, hold(world))
        done = erase(world)
        kept = {key.key for key in hospital.vault.keys_of(ME)}
        later = await world.bill("12.00")
        assert kept < {key.key for key in hospital.vault.keys_of(ME)}
        assert await answered(world, later) == "" and await answered(world, bill) == "gateway.bill_closed"
        assert first in folders(world) and world.wallets.of(ME).folder.name != first
        assert {one.code for one in checked(world, done.name).leftovers} == {"privacy.leftover_rows"}
        world.wallets.note(HeldBill(ME, bill))  # a job that is taken up again
        assert await answered(world, bill) == "gateway.bill_closed"

    play(story)


def test_a_folder_that_cannot_be_removed_leaves_the_erasure_open(play: Play, monkeypatch: pytest.MonkeyPatch) -> None:
    async def story(world: Any) -> None:
        bill = await world.bill()
        await world.grant_proofs()
        hospital, wallet = world["hospital-1"], world.wallets.of(ME).folder

        def refuses(path: Path, **_: Any) -> None:
            raise OSError

        with monkeypatch.context() as patch:
            patch.setattr("medveil.gateway.wallets.shutil.rmtree", refuses)
            with pytest.raises(Unavailable):
                erase(world)
        assert wallet.exists() and await answered(world, bill) == "gateway.bill_closed"
        (waiting,) = steps.unfinished(hospital.vault, hospital.audit)
        done = erasing.apply(hospital, waiting.name, world.now, wallets=world.wallets)
        assert done.done and not wallet.exists()

    play(story)


def test_a_wallet_that_stayed_or_came_back_is_found_and_goes_at_the_next_start(play: Play, tmp_path: Path) -> None:
    async def story(world: Any) -> None:
        await world.bill()
        other = await world.bill(person=OTHER)
        hospital, mine = world["hospital-1"], world.wallets.of(ME).folder
        shutil.copytree(mine, tmp_path / "copy")
        done = erase(world)
        shutil.copytree(tmp_path / "copy", mine)
        (found,) = checked(world, done.name).leftovers
        assert (found.code, found.facts["folder"]) == ("privacy.leftover_wallet", mine.name)
        Wallets(hospital).sweep()
        assert not mine.exists() and checked(world, done.name).leftovers == ()
        assert world.wallets.of(OTHER).bills() == (other.handle,)

    play(story)


def test_a_proof_stands_in_the_view_of_its_person(play: Play) -> None:
    async def story(world: Any) -> None:
        hospital, bill = world["hospital-1"], await world.bill()
        await world.grant_proofs()
        assert await answered(world, bill) == ""
        view = person_view.person_view(hospital, ME)
        assert [one.intent.use.kind for one in view.noted] == ["proof"]
        assert not person_view.person_view(hospital, OTHER).noted

    play(story)


def test_one_wallet_for_all_spellings(play: Play) -> None:
    async def story(world: Any) -> None:
        first, second = await world.bill(person="330106910523017"), await world.bill(person="330106199105230170")
        visits = pa.table({"cost": [1, 2, 3]})
        world["hospital-1"].vault.ingest("visits", visits, persons=["330106199105230170", OTHER, "330106910523017"])
        await world.grant_proofs()
        assert len(folders(world)) == 1
        done = erase(world, " 33010619910523017 0")
        assert [key.dataset for key in done.plan.restrict] == ["document.bill"] * 2
        assert {key.dataset for key in done.plan.erase} == {"document.wallet", "visits"}
        assert world["hospital-1"].vault.count("visits") == 1
        for bill in (first, second):
            assert await answered(world, bill) == "gateway.bill_closed"

    play(story)


# ---- homes of earlier versions


def older(world: Any, folder: str, bill: Any) -> str:
    """A wallet of an earlier version in a folder of that name, with its passphrase and its bill's note as documents."""
    hospital = world["hospital-1"]
    with world.wallets.opened(ME) as wallet:
        now, slip = wallet.folder, wallet._vault.document("bill", bill.handle.hex())
    for key in hospital.vault.keys_of(ME):
        hospital.vault.destroy([key.key], bytes(32))
    world.wallets.sweep()
    passphrase = "older-passphrase"
    made = Wallet.create(now.with_name(folder), folder, passphrase, hospital.rand)
    made._vault.put_document("bill", bill.handle.hex(), slip)
    made.close()
    hospital.vault.put_document("wallet", ME, passphrase.encode())
    hospital.vault.put_document("bill", bill.handle.hex(), encode(HeldBill(ME, bill)))
    return folder


@pytest.mark.parametrize("named", [False, True])
@pytest.mark.parametrize("cut", range(5))
def test_what_an_earlier_version_kept_is_taken_over(play: Play, named: bool, cut: int) -> None:
    """It lay in a folder of the person's keyed id or, before that, name. A process may be killed at any step."""

    async def story(world: Any) -> None:
        hospital, bill = world["hospital-1"], await world.bill()
        vault = hospital.vault
        await world.grant_proofs()
        folder = older(world, ME if named else f"wallet-{vault.person_id(ME).hex()}", bill)
        passed = [0]

        class Killed(BaseException):
            pass

        def killed(*_: Any) -> None:
            passed[0] += 1
            if passed[0] == cut:
                raise Killed

        vault._opened.fault = killed
        try:
            take_over(hospital, world.now)
        except Killed:
            pass
        vault._opened.fault = lambda _: None
        world.wallets.sweep()  # before it is taken over, none is lost
        take_over(hospital, world.now)
        take_over(hospital, world.now)
        world.wallets.sweep()
        assert not vault.documents("wallet") and not vault.documents("bill")
        assert sorted(key.dataset for key in vault.keys_of(ME)) == ["document.bill", "document.wallet"]
        assert await answered(world, bill) == "" and (ME not in folders(world))
        done = erase(world)
        assert await answered(world, bill) == "gateway.bill_closed" and not folders(world), folder
        assert checked(world, done.name).leftovers == ()

    play(story)


def kept_before(world: Any, spelling: str, number: str) -> Path:
    """A wallet as earlier versions kept it: by the keyed id of its person's spelling; its one bill is `number`."""
    hospital = world["hospital-1"]
    name = f"wallet-{hospital.vault.spelling_id(spelling).hex()}"
    passphrase = f"of-{name}"
    wallet = Wallet.create(hospital.folder / "wallets" / name, name, passphrase, hospital.rand)
    wallet._vault.put_document("bill", number, b"slip")
    wallet.close()
    hospital.vault.put_document("wallet", spelling, passphrase.encode())
    return wallet.folder


@pytest.mark.parametrize("cut", range(5))
def test_wallets_of_several_spellings_become_one_with_all_bills(play: Play, cut: int) -> None:
    """None of them stood under the id that the person has by now."""

    async def story(world: Any) -> None:
        hospital, passed = world["hospital-1"], [0]
        spellings = ["11010119900307451x", " 11010119900307451X", "11010119900307451X", "person-7"]
        for number, spelling in enumerate(spellings):
            kept_before(world, spelling, f"{number:032x}")

        class Killed(BaseException):
            pass

        def killed(*_: Any) -> None:
            passed[0] += 1
            if passed[0] == 3 * cut:
                raise Killed

        hospital.vault._opened.fault = killed
        with suppress(Killed):
            take_over(hospital, world.now)
        hospital.vault._opened.fault = lambda _: None
        take_over(hospital, world.now)
        world.wallets.sweep()
        assert len(world.wallets.of(spellings[0]).bills()) == 3 and len(world.wallets.of("person-7").bills()) == 1
        assert len(folders(world)) == 2 and not hospital.vault.documents("wallet")

    play(story)


@pytest.mark.parametrize("person", ["../vault", "..", "."])
def test_no_identifier_leads_out_of_the_wallets(play: Play, person: str) -> None:
    async def story(world: Any) -> None:
        hospital = world["hospital-1"]
        kept_before(world, person, "01" * 16)
        take_over(hospital, world.now)
        assert len(world.wallets.of(person).bills()) == 1
        assert (hospital.folder / "vault" / "vault.sqlite").is_file()

    play(story)


@pytest.mark.parametrize("person", ["欧阳" * 60, "p" * 256, "a/b\0c"])
def test_an_identifier_that_is_no_folders_name_is_taken_over(play: Play, person: str) -> None:
    async def story(world: Any) -> None:
        hospital = world["hospital-1"]
        folder = kept_before(world, person, "01" * 16)
        take_over(hospital, world.now)
        (passphrase,) = hospital.vault.streams_of("wallet", person)
        assert passphrase.name == folder.name and not hospital.vault.documents("wallet")

    play(story)


def test_a_folder_that_cannot_be_looked_at_does_not_say_whose_it_is(
    play: Play, monkeypatch: pytest.MonkeyPatch
) -> None:
    async def story(world: Any) -> None:
        kept_before(world, "person-7", "01" * 16)

        def broken(path: Path) -> bool:
            raise OSError(errno.EIO, "Input/output error", str(path))

        with monkeypatch.context() as disk:
            disk.setattr(Path, "exists", broken)
            with pytest.raises(Unavailable) as raised:
                take_over(world["hospital-1"], world.now)
        assert "person-7" not in f"{raised.value!r} {raised.value.facts}"

    play(story)


def test_a_backup_of_an_earlier_version_brings_no_erased_wallet_back(play: Play, tmp_path: Path) -> None:
    """Taken over once more, passphrase and bill have data keys that no register knows."""

    async def story(world: Any) -> None:
        hospital, bill = world["hospital-1"], await world.bill()
        vault, base = hospital.vault, hospital.folder / "wallets"
        await world.grant_proofs()
        older(world, f"wallet-{vault.person_id(ME).hex()}", bill)
        shutil.copytree(base, tmp_path / "wallets")
        kept = [(one, name, vault.document(one, name)) for one in ("wallet", "bill") for name in vault.documents(one)]
        backed_up = world.now()
        take_over(hospital, world.now)
        erase(world)
        for name in vault.streams("bill"):
            vault.remove_stream("bill", name)
        for kind, name, content in kept:
            vault.put_document(kind, name, content)
        shutil.rmtree(base)
        shutil.copytree(tmp_path / "wallets", base)
        take_over(hospital, world.now)
        steps.restored(vault, rotate_again=False)
        (again,) = erase_again(vault, hospital.name, hospital.rand, backed_up, world.now())
        assert await answered(world, bill) == "gateway.bill_closed"
        assert {key.dataset: key.state for key in vault.keys_of(ME)} == {
            "document.bill": "restricted",
            "document.wallet": "restricted",
        }
        assert [one.name for one in steps.unfinished(vault, hospital.audit)] == [again.name]
        erasing.apply(hospital, again.name, world.now, wallets=world.wallets)
        assert [key.dataset for key in vault.keys_of(ME)] == ["document.bill"] and not folders(world)

    play(story)
