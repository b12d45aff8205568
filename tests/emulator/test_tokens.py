"""Bearer tokens: 401 without one, 403 without the role, and tokens that end.

design/service-protocol.md: Tokens and roles.
"""

from __future__ import annotations

import pytest

from dicom_emulator.http.tokens import NOBODY, OWNER, READER
from dicom_emulator.state.uids import instance_key

TOKENS = {"r": READER, "o": OWNER, "n": NOBODY}
SECOND = 10_000_000


def bearer(token):
    return {"authorization": f"Bearer {token}"}


@pytest.fixture
def guarded(make_emulator, dicom):
    """A service with a token of each role and one instance."""
    emulator, api = make_emulator(tokens=TOKENS)
    file = dicom()
    api.http.headers.update(bearer("o"))
    assert api.store(file).status_code == 200
    del api.http.headers["authorization"]
    return emulator.service, api, file


def test_without_a_token_nothing_is_told(guarded):
    """401 with a challenge and no body, for every service route; health and control routes answer."""
    _, api, file = guarded
    answers = [api.feed(), api.latest(), api.get("/studies"), api.delete(file.path), api.store(file)]
    assert [answer.status_code for answer in answers] == [401] * 5
    assert {(answer.headers["www-authenticate"], answer.content) for answer in answers} == {("Bearer", b"")}
    assert api.http.get(f"{api.root}/health/check").status_code == 200
    assert api.http.get(f"{api.root}/_emulator/instances").status_code == 200


@pytest.mark.parametrize("header", ["Bearer x", "Basic r", "r", "Bearer"])
def test_a_wrong_token_is_as_none(guarded, header):
    """401 for another token, another scheme, or half a header."""
    _, api, _ = guarded
    assert api.http.get(f"{api.root}/v2/changefeed", headers={"authorization": header}).status_code == 401


def test_each_role_does_what_it_may(guarded):
    """A reader reads, searches and follows the feed; an owner all; without a role nothing, in plain text."""
    _, api, file = guarded
    accept = {"accept": "*/*"}
    reads = ["/changefeed", "/changefeed/latest", "/studies", f"{file.path}/metadata", "/operations/0"]

    def statuses(token):
        return [api.get(path, headers=accept | bearer(token)).status_code for path in reads]

    assert statuses("r") == statuses("o") == [200, 200, 200, 200, 404]
    assert statuses("n") == [403] * 5
    refused = api.get("/changefeed", headers=bearer("n"))
    assert refused.headers["content-type"].startswith("text/plain")
    for token, expected in (("r", 403), ("n", 403), ("o", 409)):
        api.http.headers.update(bearer(token))
        assert api.store(file).status_code == expected
    api.http.headers.update(bearer("r"))
    assert api.delete(file.path).status_code == 403
    assert api.bulk_update([file.study], {}).status_code == 403
    api.http.headers.update(bearer("o"))
    assert api.bulk_update([file.study], {}).status_code == 202
    assert api.delete(file.path).status_code == 204


def test_a_token_ends_by_the_services_clock(make_emulator):
    """It holds until its instant, and not at it."""
    emulator, api = make_emulator()
    assert api.feed().status_code == 200
    clock = emulator.service.clock
    clock.freeze("2024-05-01T10:00:00Z")
    token = emulator.service.tokens.issue(READER, expires=clock.now_ticks() + 60 * SECOND)
    assert api.feed().status_code == 401
    api.http.headers.update(bearer(token))
    statuses = []
    for _ in range(3):
        statuses.append(api.feed().status_code)
        clock.advance(30 * SECOND)
    assert statuses == [200, 200, 401]
    assert emulator.service.tokens.refused == 2


def test_a_token_ends_after_so_many_requests(make_emulator):
    """Three and no more; a new one goes on."""
    emulator, api = make_emulator()
    api.http.headers.update(bearer(emulator.service.tokens.issue(requests=3)))
    assert [api.feed().status_code for _ in range(5)] == [200, 200, 200, 401, 401]
    api.http.headers.update(bearer(emulator.service.tokens.issue()))
    assert api.feed().status_code == 200


def test_tokens_are_issued_and_revoked_over_http(make_emulator):
    """POST gives one with role, life and number of requests; DELETE takes all back."""
    emulator, api = make_emulator()
    emulator.service.create(instance_key("1", "2", "3"), b"{}")
    tokens = f"{api.root}/_emulator/tokens"
    made = api.http.post(tokens, json={"role": "reader", "seconds": 3600, "requests": 2})
    assert made.status_code == 201
    api.http.headers.update(bearer(made.json()["token"]))
    assert [len(api.feed().json()), api.delete("/studies/1").status_code] == [1, 403]
    assert api.feed().status_code == 401
    api.http.headers.update(bearer(api.http.post(tokens, json={}).json()["token"]))
    assert api.feed().status_code == 200
    assert api.http.delete(tokens).status_code == 204
    assert api.feed().status_code == 401
    assert api.http.post(tokens, json={"role": "king"}).status_code == 400
