"""The two trees: shape, proofs, and everything that must not pass for a proof."""

from __future__ import annotations

import gc
from collections.abc import Callable
from hashlib import sha256

import msgspec
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from ledger.trees import nodes as nodes_module
from ledger.trees import state as state_module
from ledger.trees.log import Log
from ledger.trees.nodes import BUCKET, records
from ledger.trees.state import Slot, StateProof, StateTree, path_of, verify_state
from wire.canonical import decode, encode
from wire.checkpoint import leaf_hash, tree_root, verify_consistency, verify_inclusion
from wire.checkpoint import log_proofs as whole
from wire.domains import STATE_BUCKET, STATE_INNER, STATE_LEAF, digest
from wire.errors import DecodeError, VerificationError

# --- the log -------------------------------------------------------------------------------------


def log_of(size: int) -> Log:
    log = Log()
    for number in range(size):
        assert log.append(b"%d" % number) == number
    return log


def test_the_log_agrees_with_the_whole_tree() -> None:
    log = log_of(40)
    leaves = [leaf_hash(b"%d" % number) for number in range(40)]
    assert log.size == 40 and log.root() == tree_root(leaves) and log.root(0) == tree_root([])
    for size in range(1, 41):
        assert log.root(size) == tree_root(leaves[:size])
        for index in range(size):
            assert log.inclusion_proof(index, size) == whole.inclusion_proof(leaves[:size], index)
        for first in range(1, size + 1):
            assert log.consistency_proof(first, size) == whole.consistency_proof(leaves[:size], first)


@given(st.integers(1, 200), st.data())
def test_proofs_of_the_log_verify(size: int, data: st.DataObject) -> None:
    log = log_of(size)
    index, first = data.draw(st.integers(0, size - 1)), data.draw(st.integers(1, size))
    verify_inclusion(log.root(), size, index, leaf_hash(b"%d" % index), log.inclusion_proof(index))
    verify_consistency(first, log.root(first), size, log.root(), log.consistency_proof(first))


@given(st.integers(0, 70))
def test_the_root_with_one_more(size: int) -> None:
    log = log_of(size)
    expected = log.root_with(b"next")
    log.append(b"next")
    assert log.root() == expected


@given(st.integers(0, 70), st.data())
def test_truncating(size: int, data: st.DataObject) -> None:
    log, keep = log_of(size), data.draw(st.integers(0, size))
    log.truncate(keep)
    assert log.size == keep and log.root() == log_of(keep).root()
    for number in range(keep, size):
        log.append(b"%d" % number)
    assert log.root() == log_of(size).root()


def test_the_log_refuses_impossible_requests() -> None:
    log = log_of(3)
    for call in (
        lambda: log.root(4),
        lambda: log.root(-1),
        lambda: log.inclusion_proof(3),
        lambda: log.inclusion_proof(2, 2),
        lambda: log.consistency_proof(0),
        lambda: log.consistency_proof(3, 2),
        lambda: log.truncate(4),
    ):
        with pytest.raises(ValueError):
            call()


# --- the state tree ------------------------------------------------------------------------------


def tree_of(items: dict[bytes, bytes]) -> StateTree:
    tree = StateTree()
    for key, value in items.items():
        tree = tree.put(key, value)
    return tree


def hashed(key: bytes) -> bytes:
    return sha256(key).digest()


def defined_root(items: dict[bytes, bytes], depth: int = 0, path: Callable[[bytes], bytes] = hashed) -> bytes:
    """The definition, word for word: the second implementation."""
    if len(items) <= BUCKET:
        slots = sorted((path(key), digest(STATE_LEAF, key, value)) for key, value in items.items())
        return digest(STATE_BUCKET, *(part for slot in slots for part in slot))

    def choice(key: bytes) -> str:
        return format(int.from_bytes(path(key), "big"), "0256b")[3 * depth : 3 * depth + 3]

    parts = [{key: value for key, value in items.items() if choice(key) == format(turn, "03b")} for turn in range(8)]
    return digest(STATE_INNER, b"".join(defined_root(part, depth + 1, path) for part in parts))


KEYS = st.integers(0, 60).map(lambda number: b"key/%d" % number)


@settings(max_examples=60, deadline=None)
@given(st.lists(st.tuples(KEYS, st.none() | st.binary(max_size=3)), max_size=120))
def test_any_history_of_writes_and_deletions_has_the_root_of_what_is_left(
    writes: list[tuple[bytes, bytes | None]],
) -> None:
    tree, items = StateTree(), dict[bytes, bytes]()
    for key, value in writes:
        before, root = tree, tree.root
        if value is None:
            tree = tree.delete(key)
            items.pop(key, None)
        else:
            tree = tree.put(key, value)
            items[key] = value
        assert before.root == root
    assert tree.root == defined_root(items) == tree_of(dict(reversed(items.items()))).root
    assert len(tree) == len(items) and dict(tree.items()) == items
    assert [key for key, _ in tree.items()] == sorted(items)


@settings(max_examples=60, deadline=None)
@given(st.lists(st.dictionaries(KEYS, st.none() | st.binary(max_size=3), max_size=60), max_size=6))
def test_writing_many_keys_at_once_is_writing_them_one_by_one(batches: list[dict[bytes, bytes | None]]) -> None:
    tree, items = StateTree(), dict[bytes, bytes]()
    for batch in batches:
        before, root = tree, tree.root
        tree = tree.update(batch)
        for key, value in batch.items():
            if value is None:
                items.pop(key, None)
            else:
                items[key] = value
        assert before.root == root and before.update({}).root == root
        assert tree.root == defined_root(items) == tree_of(items).root
        assert dict(tree.items()) == items and len(tree) == len(items)


@settings(max_examples=60, deadline=None)
@given(st.integers(0, 80), st.data())
def test_proofs_of_values_and_of_absence(size: int, data: st.DataObject) -> None:
    items = {b"key/%d" % number: b"%d" % (number * number) for number in range(size)}
    tree = tree_of(items)
    key = b"key/%d" % data.draw(st.integers(0, 90))
    proof = tree.prove(key)
    assert decode(StateProof, encode(proof)) == proof
    verify_state(tree.root, key, items.get(key), proof)
    assert tree.get(key) == items.get(key)
    wrong = b"other" if key in items else b""
    for claim in {wrong, None, b"x"} - {items.get(key)}:
        with pytest.raises(VerificationError):
            verify_state(tree.root, key, claim, proof)


def cut(proof: StateProof) -> list[list[bytes]]:
    """The hashes of each level, one by one."""
    return [[beside[at : at + 32] for at in range(0, len(beside), 32)] for beside in proof.siblings]


def with_levels(proof: StateProof, levels: list[list[bytes]]) -> StateProof:
    return msgspec.structs.replace(proof, siblings=tuple(b"".join(level) for level in levels))


def test_every_changed_byte_of_a_proof_is_refused() -> None:
    tree = tree_of({b"key/%d" % number: b"value" for number in range(400)})
    for key, value in ((b"key/7", b"value"), (b"none/7", None)):
        proof = tree.prove(key)
        verify_state(tree.root, key, value, proof)
        assert len(proof.siblings) >= 2 and proof.slots
        hashes = [part for slot in proof.slots for part in (slot.path, slot.leaf)] + list(proof.siblings)
        for which in range(len(hashes)):
            for at in range(0, len(hashes[which]), 31):
                parts = list(hashes)
                parts[which] = parts[which][:at] + bytes([parts[which][at] ^ 1]) + parts[which][at + 1 :]
                slots = tuple(Slot(*parts[2 * n : 2 * n + 2]) for n in range(len(proof.slots)))
                with pytest.raises(VerificationError):
                    verify_state(tree.root, key, value, StateProof(slots, tuple(parts[2 * len(slots) :])))
        for changed in (
            msgspec.structs.replace(proof, siblings=()),
            msgspec.structs.replace(proof, siblings=proof.siblings[1:]),
            msgspec.structs.replace(proof, siblings=proof.siblings[:-1]),
            msgspec.structs.replace(proof, siblings=proof.siblings[::-1]),
            msgspec.structs.replace(proof, siblings=(*proof.siblings, bytes(7 * 32))),
            msgspec.structs.replace(proof, siblings=(bytes(7 * 32), *proof.siblings)),
            msgspec.structs.replace(proof, siblings=(bytes(7 * 32),) * 86),
            msgspec.structs.replace(proof, slots=proof.slots[::-1] if len(proof.slots) > 1 else proof.slots * 2),
            msgspec.structs.replace(proof, slots=proof.slots[:-1]),
            msgspec.structs.replace(proof, slots=()),
            msgspec.structs.replace(proof, slots=proof.slots * 9),
            msgspec.structs.replace(proof, slots=(Slot(bytes(31), bytes(33)),)),
        ):
            with pytest.raises(VerificationError):
                verify_state(tree.root, key, value, changed)
        with pytest.raises(VerificationError):
            verify_state(bytes(32), key, value, proof)
        with pytest.raises(VerificationError):
            verify_state(tree.root, b"key/8", b"value", proof)


def test_a_sibling_that_is_changed_added_removed_or_moved_is_refused() -> None:
    tree = tree_of({b"key/%d" % number: b"value" for number in range(400)})
    proof = tree.prove(b"key/7")
    levels = cut(proof)
    assert all(len(level) == 7 for level in levels)
    for which, level in enumerate(levels):
        others: list[list[bytes]] = []
        for at in range(7):
            others += (
                [*level[:at], bytes(32), *level[at + 1 :]],
                [*level[:at], digest(STATE_BUCKET), *level[at + 1 :]],
                [*level[:at], *level[at + 1 :]],
                [*level[:at], bytes(32), *level[at:]],
                [*level[:at], digest(STATE_BUCKET), *level[at:]],
                *(
                    [*level[:at], level[to], *level[at + 1 : to], level[at], *level[to + 1 :]]
                    for to in range(at + 1, 7)
                ),
            )
        tried = [other for other in others if other != level]  # two empty children may change places
        assert len(tried) > 40
        for other in tried:
            with pytest.raises(VerificationError):
                verify_state(
                    tree.root, b"key/7", b"value", with_levels(proof, [*levels[:which], other, *levels[which + 1 :]])
                )


def test_a_proof_of_other_lengths_is_not_decoded() -> None:
    tree = tree_of({b"key/%d" % number: b"value" for number in range(40)})
    proof = tree.prove(b"key/7")
    for beside in (b"", bytes(32), bytes(6 * 32), bytes(7 * 32 - 1), bytes(7 * 32 + 1), bytes(8 * 32)):
        with pytest.raises(DecodeError):
            decode(StateProof, encode(msgspec.structs.replace(proof, siblings=(beside,))))


def test_an_inner_node_binds_all_eight_children() -> None:
    """A child without keys is the empty bucket, wherever it is, and is not left out."""
    items = {b"key/%d" % number: b"v" for number in range(9)}
    tree = tree_of(items)
    proof = tree.prove(b"key/0")
    (level,) = cut(proof)
    own = sha256(b"key/0").digest()[0] >> 5
    taken = {sha256(key).digest()[0] >> 5 for key in items}
    places = [turn for turn in range(8) if turn != own]
    assert [turn for turn in places if level[places.index(turn)] == digest(STATE_BUCKET)] == [
        turn for turn in places if turn not in taken
    ]
    bucket = digest(STATE_BUCKET, *(part for slot in proof.slots for part in (slot.path, slot.leaf)))
    children = [*level[:own], bucket, *level[own:]]
    assert tree.root == digest(STATE_INNER, b"".join(children))
    fewer = b"".join(child for child in children if child != digest(STATE_BUCKET))
    assert tree.root not in (digest(STATE_INNER, fewer), digest(STATE_INNER, *children))


def test_absence_is_not_shown_by_another_keys_bucket() -> None:
    tree = tree_of({b"key/%d" % number: b"value" for number in range(60)})
    for other in range(60):
        if other != 7:
            proof = tree.prove(b"key/%d" % other)
            with pytest.raises(VerificationError):
                verify_state(tree.root, b"key/7", None, proof)


def test_ground_keys_make_a_deeper_subtree_and_no_more(monkeypatch: pytest.MonkeyPatch) -> None:
    """Keys whose paths share many bits, as a grinder would find them, split until they differ."""

    def ground(key: bytes) -> bytes:
        return b"\x00" * 31 + key[-1:] if key.startswith(b"ground") else sha256(key).digest()

    monkeypatch.setattr(state_module, "path_of", ground)
    tree = tree_of({b"ground" + bytes([number]): b"v" for number in range(BUCKET * 4)})
    key = b"ground" + bytes([5])
    proof = tree.prove(key)
    assert len(proof.slots) <= BUCKET and 248 / 3 <= len(proof.siblings) <= 85
    verify_state(tree.root, key, b"v", proof)
    for number in range(BUCKET * 4 - 1):
        tree = tree.delete(b"ground" + bytes([number]))
    assert len(tree.prove(key).siblings) == 0 and len(tree) == 1


def test_keys_that_part_only_in_their_last_bits(monkeypatch: pytest.MonkeyPatch) -> None:
    """Keys of one path but for its last four bits go down to the deepest level, and back up as they are removed."""

    def ground(key: bytes) -> bytes:
        return b"\xff" * 31 + (bytes([0xF0 | key[0]]) if len(key) == 1 else b"\x00")

    monkeypatch.setattr(state_module, "path_of", ground)
    tree, items = StateTree(), dict[bytes, bytes]()
    for last in range(16):
        tree = tree.put(bytes([last]), b"%d" % last)
        items[bytes([last])] = b"%d" % last
        assert tree.root == defined_root(items, path=ground)
    assert len(tree.prove(b"\x05").siblings) == 85  # as deep as any: 84 turns are shared
    for key in (*items, b"other"):
        verify_state(tree.root, key, items.get(key), tree.prove(key))
        with pytest.raises(VerificationError):
            verify_state(tree.root, key, None if key in items else b"", tree.prove(key))
    tree = tree.delete(b"\x00").put(b"\x00", b"0")
    assert tree.root == defined_root(items, path=ground)
    for last in range(0, 16, 2):
        tree = tree.delete(bytes([last]))
        del items[bytes([last])]
        assert tree.root == defined_root(items, path=ground)
    assert len(tree.prove(b"\x05").siblings) == 0 and dict(tree.items()) == items


@settings(max_examples=40, deadline=None)
@given(st.lists(st.dictionaries(st.integers(0, 400), st.none() | st.binary(max_size=2), max_size=200), max_size=5))
def test_ground_paths_of_many_depths_agree_with_the_definition(batches: list[dict[int, bytes | None]]) -> None:
    """Paths that share up to 255 bits, in batches of writes and deletions."""

    def ground(key: bytes) -> bytes:
        number = int.from_bytes(key, "big")
        return (number % 20 << 13 * (number % 19) | number).to_bytes(32, "big")

    with pytest.MonkeyPatch.context() as patched:
        patched.setattr(state_module, "path_of", ground)
        tree, items = StateTree(), dict[bytes, bytes]()
        for batch in batches:
            written = {number.to_bytes(2, "big"): value for number, value in batch.items()}
            written = {key: written[key] for key in {ground(key): key for key in written}.values()}
            tree = tree.update(written)
            for key, value in written.items():
                items.pop(key, None)
                items |= {} if value is None else {key: value}
            assert tree.root == defined_root(items, path=ground) and dict(tree.items()) == items
            for key in list(written)[:5]:
                verify_state(tree.root, key, items.get(key), tree.prove(key))


def test_paths_that_part_late(monkeypatch: pytest.MonkeyPatch) -> None:
    """Batches of ground keys that part at bits 20 to 24, 100 to 104 and 250 to 256, written, changed and removed."""

    def ground(key: bytes) -> bytes:
        path = bytearray(32)
        path[2], path[12], path[31] = key
        return bytes(path)

    monkeypatch.setattr(state_module, "path_of", ground)
    keys = [bytes((a, b, c)) for a in range(0, 16, 5) for b in range(0, 16, 3) for c in range(0, 64, 9)]
    tree, items = StateTree(), dict[bytes, bytes]()
    for step, part in ((1, 1), (3, 2), (2, 3), (5, 2), (7, 1)):
        batch = {key: None if place % part else b"%d" % (place * step) for place, key in enumerate(keys[:: step % 4])}
        tree = tree.update(batch)
        for key, value in batch.items():
            items.pop(key, None)
            items |= {} if value is None else {key: value}
        assert tree.root == defined_root(items, path=ground) and len(tree) == len(items)
        assert dict(tree.items()) == items and all(tree.get(key) == items.get(key) for key in keys)
        for key in keys[::17]:
            verify_state(tree.root, key, items.get(key), tree.prove(key))


def test_a_path_that_is_another_keys_leaf_hash_is_not_found_there(monkeypatch: pytest.MonkeyPatch) -> None:
    leaf = digest(STATE_LEAF, b"key", b"value")
    monkeypatch.setattr(state_module, "path_of", lambda key: leaf if key == b"ground" else sha256(key).digest())
    tree = tree_of({b"key": b"value"})
    assert tree.get(b"ground") is None and tree.get(b"key") == b"value"
    verify_state(tree.root, b"ground", None, tree.prove(b"ground"))
    tree = tree.put(b"ground", b"other")
    assert tree.get(b"ground") == b"other" and tree.get(b"key") == b"value" and len(tree) == 2


def test_the_garbage_collector_does_not_walk_the_state() -> None:
    gc.collect()
    before = len(gc.get_objects())
    tree = StateTree().update({b"key/%d" % number: b"%d" % number for number in range(2000)})
    gc.collect()
    assert len(tree) == 2000 and len(gc.get_objects()) - before < 100


def test_shrinking_and_growing_step_by_step() -> None:
    items = {b"key/%d" % number: b"v" for number in range(40)}
    tree = tree_of(items)
    for number in range(40):
        tree = tree.delete(b"key/%d" % number)
        del items[b"key/%d" % number]
        assert tree.root == defined_root(items)
    for number in range(40):
        tree = tree.put(b"key/%d" % number, b"v")
        items[b"key/%d" % number] = b"v"
        assert tree.root == defined_root(items)


def test_a_malformed_bucket_shows_nothing_even_under_its_own_root() -> None:
    """A root that somebody made up over slots that are out of order, repeated, or of another prefix."""
    paths = sorted(sha256(b"%d" % number).digest() for number in range(20))
    key = b"not among them"
    high, low = [path for path in paths if path[0] >= 0x80], [path for path in paths if path[0] < 0x80]
    other = low if path_of(key)[0] >= 0x80 else high

    def root(slots: list[bytes], siblings: tuple[bytes, ...]) -> bytes:
        bucket = digest(STATE_BUCKET, *(part for path in slots for part in (path, bytes(32))))
        for sibling in siblings:
            before = 32 * (path_of(key)[0] >> 5)
            bucket = digest(STATE_INNER, sibling[:before] + bucket + sibling[before:])
        return bucket

    for slots, siblings, fine in (
        (paths[:3], (), True),
        ([paths[1], paths[0]], (), False),
        ([paths[0], paths[0]], (), False),
        ([], (bytes(7 * 32),), True),
        (other[:2], (bytes(7 * 32),), False),
    ):
        proof = StateProof(tuple(Slot(path, bytes(32)) for path in slots), siblings)
        if fine:
            verify_state(root(slots, siblings), key, None, proof)
            continue
        with pytest.raises(VerificationError):
            verify_state(root(slots, siblings), key, None, proof)


@given(batches=st.lists(st.dictionaries(st.binary(max_size=2), st.none() | st.binary(max_size=1)), max_size=6))
@settings(max_examples=200)
def test_what_changed_since_another_tree(batches: list[dict[bytes, bytes | None]]) -> None:
    trees = [StateTree()]
    for batch in batches:
        trees.append(trees[-1].update(batch))
    for before in (*trees, StateTree().update({bytes([one]): b"x" for one in range(40)})):
        for after in trees:
            was, found = dict(before.items()), list(after.changed(before))
            assert sorted(found) == sorted(one for one in after.items() if was.get(one[0]) != one[1])
            assert all(key.startswith(b"\1") for key, _ in after.changed(before, b"\1"))


def test_what_both_trees_share_is_not_looked_at(monkeypatch: pytest.MonkeyPatch) -> None:
    tree = StateTree().update({index.to_bytes(4, "big"): b"x" for index in range(20_000)})
    looked = []
    monkeypatch.setattr(nodes_module, "records", lambda node: looked.append(node) or records(node))
    assert list(tree.changed(tree)) == [] and not looked
    later = tree.put(b"new", b"1").put((7).to_bytes(4, "big"), b"2").delete((8).to_bytes(4, "big"))
    assert sorted(later.changed(tree)) == [((7).to_bytes(4, "big"), b"2"), (b"new", b"1")]
    assert len(looked) < 60


def test_the_empty_tree() -> None:
    tree = StateTree()
    assert tree.root == digest(STATE_BUCKET) and tree.get(b"x") is None and len(tree) == 0
    verify_state(tree.root, b"x", None, tree.prove(b"x"))
    assert tree.delete(b"x").root == tree.root


def test_deleting_what_is_not_there_changes_nothing() -> None:
    tree = tree_of({b"key/%d" % number: b"v" for number in range(30)})
    assert tree.delete(b"none").root == tree.root


def test_a_path_is_the_hash_of_the_key() -> None:
    assert path_of(b"k") == sha256(b"k").digest()


def test_leaf_bucket_and_inner_hashes_are_apart() -> None:
    a, b = bytes(32), bytes([1]) * 32
    assert len({digest(tag, a, b) for tag in (STATE_LEAF, STATE_BUCKET, STATE_INNER)}) == 3
