"""Rows that have their number and become visible late (design/service-protocol.md: Late rows)."""

from __future__ import annotations

import pytest

from dicom_emulator.state.uids import instance_key

TEN = "2024-05-01T10:00:00Z"
SECOND = 10_000_000


@pytest.fixture
def six(make_emulator):
    """A service with six entries, one a second from 10:00 on."""
    emulator, api = make_emulator()
    emulator.service.clock.freeze(TEN, step=SECOND)
    for number in range(1, 7):
        emulator.service.create(instance_key("1.2", "1.2.3", f"1.2.3.{number}"), b"{}")
    return emulator.service, api


def feeds(api, **parameters):
    return {version: [row["sequence"] for row in api.feed(version=version, **parameters).json()] for version in (1, 2)}


def test_a_held_row_is_not_served_in_either_version(six):
    """Not in pages, not as the latest; the offsets of those behind it move. Released, it is there."""
    service, api = six
    service.hold(3)
    service.hold(6)
    assert feeds(api) == {1: [1, 2, 4, 5], 2: [1, 2, 4, 5]}
    assert [row["sequence"] for row in api.feed(offset=1, limit=2).json()] == [2, 4]
    assert [api.latest(version=version).json()["sequence"] for version in (1, 2)] == [5, 5]
    service.release(6)
    assert [api.latest(version=version).json()["sequence"] for version in (1, 2)] == [6, 6]
    service.release()
    assert feeds(api)[2] == [1, 2, 3, 4, 5, 6]


def test_a_held_row_appears_at_its_time(six):
    """Until the service's clock reaches the instant it is not there."""
    service, api = six
    now = service.clock.now_ticks()
    service.hold(2, until=now + 60 * SECOND)
    service.clock.advance(60 * SECOND - 1)
    assert feeds(api) == {1: [1, 3, 4, 5, 6], 2: [1, 3, 4, 5, 6]}
    service.clock.advance(1)
    assert feeds(api) == {1: [1, 2, 3, 4, 5, 6], 2: [1, 2, 3, 4, 5, 6]}


def test_a_row_is_held_before_it_exists(six):
    """The next number is known; its row is never seen before its release, though the instance is live."""
    service, api = six
    service.hold(service.next_sequence)
    row = service.create(instance_key("1.2", "1.2.3", "1.2.3.7"), b"{}")
    assert row.sequence == 7
    assert feeds(api)[2] == [1, 2, 3, 4, 5, 6]
    assert len(service.live_instances()) == 7
    service.release(7)
    assert feeds(api)[2][-1] == 7


def test_rows_are_held_over_http(six):
    """POST one with or without an instant, DELETE all; a feed of held rows alone has no latest."""
    _, api = six
    held = f"{api.root}/_emulator/held"
    for sequence in range(1, 7):
        assert api.http.post(held, json={"sequence": sequence, "until": "2024-05-01T11:00:00Z"}).status_code == 204
    assert feeds(api) == {1: [], 2: []}
    assert [api.latest(version=version).status_code for version in (1, 2)] == [204, 204]
    assert api.http.post(held, json={}).status_code == 400
    assert api.http.delete(held).status_code == 204
    assert len(feeds(api)[2]) == 6


def test_a_whole_transaction_may_commit_late(six):
    """An event with an earlier time and number: until it happens the older rows of its key are as before."""
    service, api = six
    service.skip_sequences(1)
    service.create(instance_key("1.2", "1.2.3", "1.2.3.8"), b"{}")
    assert feeds(api)[2] == [1, 2, 3, 4, 5, 6, 8]
    before = {row["sequence"]: row["state"] for row in api.feed().json()}
    at = service.history.window(0, 2**62, 0, 10)[4].ticks + 1
    service.update(instance_key("1.2", "1.2.3", "1.2.3.1"), b'{"a":{}}', at_ticks=at, sequence=7)
    after = {row["sequence"]: row["state"] for row in api.feed().json()}
    assert feeds(api)[2] == [1, 2, 3, 4, 5, 7, 6, 8]
    assert (before[1], after[1], after[7]) == ("Current", "Replaced", "Current")
