"""Random histories: deterministic, of every kind, fast, and true to the rules of the mutable feed."""

from __future__ import annotations

import json
from collections import Counter, defaultdict
from itertools import pairwise

import pytest

from dicom_emulator.http import jsontext
from dicom_emulator.options import EmulatorOptions
from dicom_emulator.state.service import DicomService
from dicom_emulator.state.timestamps import MAX_TICKS, MIN_TICKS, ticks_of
from dicom_emulator.state.uids import InstanceKey
from dicom_emulator.testing import headers
from dicom_emulator.testing.headers import CHANGEABLE, real_headers
from dicom_emulator.testing.random_feed import HOUR, compose, play

DELAY = HOUR // 4
KINDS = (
    "create", "update", "delete instance", "delete series", "delete study", "re-create", "re-create after update",
    "other partition", "same SOP in two series", "same UIDs in two partitions", "padded", "tie", "crossed", "gap",
    "late", "numbered early", "edge of a window", "before an edge", *(f"{digits} digits" for digits in range(8)),
)  # fmt: skip


def rows_of(service):
    """Everything that the feed could serve, in its order."""
    return [
        (
            row.sequence, row.ticks, row.action, row.state, row.key, row.uids, row.file_path,
            None if row.current_watermark is None else service.version(row.current_watermark).metadata,
        )
        for row in service.history.window(MIN_TICKS, MAX_TICKS, 0, 10**9)
    ]  # fmt: skip


def test_the_same_seed_gives_the_same_feed():
    """Equal to the byte, whole and in two parts; another seed shares no key with it."""
    one, two = DicomService(), DicomService()
    script = play(one, 7, 2000)
    again = compose(7, 2000)
    assert again == script
    middle = script.frame.start + script.frame.span // 2
    parts = [again.play(two, until=middle), again.play(two, after=middle)]
    assert min(parts) > 500
    assert sum(parts) == script.entries == len(one.history)
    assert rows_of(one) == rows_of(two)
    other = compose(8, 2000)
    assert not {key for event in script.events for key in event.keys} & {key for e in other.events for key in e.keys}


def test_two_seeds_fit_into_one_service():
    """Sequences go on where the service stands."""
    service = DicomService()
    first, second = play(service, 1, 300), play(service, 2, 300, start="2024-05-03T00:00:00Z")
    assert len(service.history) == first.entries + second.entries
    assert min(s for e in second.events for s in e.sequences) > max(s for e in first.events for s in e.sequences)


def test_every_kind_occurs():
    """In a few thousand rows there are all of them, each many times."""
    counts = compose(20240501, 4000).kinds()
    assert counts["entries"] >= 4000
    assert counts["histories"] > 600
    assert {kind: counts[kind] for kind in KINDS if counts[kind] < 20} == {}


def test_nothing_is_late_without_a_delay():
    """A service whose rows are visible at once, still with crossed sequences, gaps and ties."""
    counts = compose(3, 3000, delay=0, span=HOUR).kinds()
    assert (counts["late"], counts["numbered early"]) == (0, 0)
    assert min(counts["tie"], counts["gap"], counts["same SOP in two series"]) > 20


def test_times_keep_within_the_frame():
    """Timestamps in [start, end), each row visible after its number is taken and less than the delay late."""
    start = ticks_of("2031-02-03T00:00:00Z")
    script = compose(5, 3000, start="2031-02-03T00:00:00Z", window=HOUR // 6, delay=DELAY, span=3 * HOUR)
    moments = [event.moment for event in script.events]
    assert len(moments) > 1500
    assert all(start <= one.ticks < start + 3 * HOUR for one in moments)
    assert all(one.ticks <= one.numbered <= one.commit < one.ticks + DELAY for one in moments)
    assert max(one.commit - one.ticks for one in moments) > DELAY * 0.8
    assert [one.commit for one in moments] == sorted(one.commit for one in moments)
    assert script.end == start + 3 * HOUR + DELAY
    assert sum(one.ticks % (HOUR // 6) == 0 for one in moments) > 20


def test_within_a_key_time_and_sequence_agree():
    """Never crossed within a history: the order of its commits is that of its times and of its numbers."""
    of_history, of_key = defaultdict(list), defaultdict(list)
    for event in compose(11, 5000).events:
        for key, sequence in zip(event.keys, event.sequences, strict=True):
            of_key[key].append((event.moment.ticks, sequence))
            of_history[event.history].append(event.moment.ticks)
    assert len(of_key) > 1000
    assert max(map(len, of_key.values())) >= 6
    for rows in of_key.values():
        assert [sequence for _, sequence in rows] == sorted(sequence for _, sequence in rows)
        assert [ticks for ticks, _ in rows] == sorted(ticks for ticks, _ in rows)
    assert all(ticks == sorted(ticks) for ticks in of_history.values())
    assert sum(len({ticks for ticks, _ in rows}) < len(rows) for rows in of_key.values()) > 20


class Model:
    """The rules, spelled out over plain lists: every event looks at every row.

    design/service-protocol.md: Rows that change.
    """

    def __init__(self):
        self.rows = []
        self.live = {}

    def apply(self, event, documents):
        for key, sequence, document in zip(event.keys, event.sequences, documents, strict=True):
            if event.action == "Delete":
                removed = self.live.pop(key)
                version = None
            else:
                assert (key in self.live) == (event.action == "Update")
                removed, version = None, (sequence, document)
                self.live[key] = (sequence, event.moment.ticks, document)
            for row in self.rows:
                if row["key"] == key:
                    row["now"] = version
            own = version or ("removed", removed)
            self.rows.append(
                {"sequence": sequence, "ticks": event.moment.ticks, "action": event.action, "key": key}
                | {"own": own, "now": version}
            )  # fmt: skip

    def served(self):
        for row in sorted(self.rows, key=lambda row: (row["ticks"], row["sequence"])):
            state = "Deleted" if row["now"] is None else "Current" if row["now"] == row["own"] else "Replaced"
            metadata = None if row["now"] is None else row["now"][1]
            yield row["sequence"], row["ticks"], row["action"], state, row["key"], metadata


def test_the_feed_is_what_a_slow_model_says():
    """State and metadata of every row, after each quarter of the story and at its end; and what is live."""
    service, model = DicomService(), Model()
    script = compose(99, 1200)
    commits = [event.moment.commit for event in script.events]
    edges = [0, *(commits[len(commits) * part // 4] for part in (1, 2, 3)), script.end]
    states: Counter[tuple[str, str]] = Counter()
    for after, until in pairwise(edges):
        for event in script.events:
            if after <= event.moment.commit < until:
                used = [real_headers()[at] for at in event.headers] or [None] * len(event.keys)
                made = zip(used, event.keys, strict=True)
                model.apply(event, [header and header.metadata(key, event.values) for header, key in made])
        script.play(service, after=after, until=until)
        served = list(model.served())
        assert [(*row[:5], row[7]) for row in rows_of(service)] == served
        states.update((row[2], row[3]) for row in served)
    assert set(states) == {
        ("Create", "Current"), ("Create", "Replaced"), ("Create", "Deleted"), ("Update", "Current"),
        ("Update", "Replaced"), ("Update", "Deleted"), ("Delete", "Replaced"), ("Delete", "Deleted"),
    }  # fmt: skip
    live = {one.key: (one.sequence, one.ticks, one.metadata) for one in service.live_instances()}
    assert len(live) > 100
    assert live == model.live


def test_file_paths_follow_the_rules():
    """An update renews the path on all rows of its key, a re-create leaves the older ones.

    design/service-protocol.md: Rows that change.
    """
    service = DicomService(EmulatorOptions(file_paths=True))
    play(service, 4, 1500)
    paths = defaultdict(set)
    for _, _, action, state, key, _, path, _ in rows_of(service):
        if state == "Current":
            assert path is not None
        paths[key].add((action, path))
    assert any(("Delete", None) in rows for rows in paths.values())
    assert any(action == "Delete" and path for rows in paths.values() for action, path in rows)
    live = {one.key: one.file_path for one in service.live_instances()}
    assert len(set(live.values())) == len(live) > 100


def test_metadata_is_that_of_real_files():
    """Whole real headers of many kinds, with the key's UIDs and the given values; nothing else is changed."""
    assert len(real_headers()) > 40
    key = InstanceKey("p", "1.2.3", "1.2.3.4", "1.2.3.4.5")
    modalities, tags = set(), Counter()
    for header in real_headers():
        own = json.loads(header.metadata(key))
        assert [own[tag]["Value"] for tag in ("0020000D", "0020000E", "00080018")] == [[uid] for uid in key[1:]]
        assert list(own) == sorted(own)
        changed = json.loads(header.metadata(key, ("", "Müller^K", None, "a+b")))
        assert {tag: own[tag] for tag in own if tag not in CHANGEABLE} == {
            tag: changed[tag] for tag in changed if tag not in CHANGEABLE
        }
        assert changed["00081030"] == {"vr": "LO"}
        assert changed["00100010"] == {"vr": "PN", "Value": [{"Alphabetic": "Müller^K"}]}
        assert changed.get("00100020") == own.get("00100020")
        assert changed["00100021"] == {"vr": "LO", "Value": ["a+b"]}
        modalities.add(own.get("00080060", {}).get("Value", [None])[0])
        tags[len(own)] += 1
    assert len(modalities) >= 5
    assert len(tags) >= 10


def test_rows_are_made_without_parsing_or_writing_json(monkeypatch):
    """The cost is bounded by what is done: no JSON is parsed or written, one transaction an event, few draws."""
    assert real_headers()

    def forbidden(*_args, **_kwargs):
        raise AssertionError("JSON was parsed or written")

    for module, name in ((jsontext, "_write"), (headers, "dumps"), (json, "loads"), (json, "dumps")):
        monkeypatch.setattr(module, name, forbidden)
    service = DicomService()
    script = compose(1, 20_000)
    assert len(script.events) <= script.entries <= 20_100
    assert script.play(service) == script.entries == len(service.history) >= 20_000
    assert sum(len(one.metadata) for one in service.live_instances()) / len(service.live_instances()) > 1000


@pytest.mark.parametrize("seed", [-1, 10**12])
def test_a_seed_that_is_no_part_of_a_uid_is_refused(seed):
    """It would make UIDs that the service does not take."""
    with pytest.raises(ValueError, match="seed"):
        compose(seed, 1)
