"""`remote/http/connection.py`: a proxy that cannot be used is a setting that is wrong."""

from __future__ import annotations

import pytest

from dicom_etl.core.errors import ConfigurationError
from dicom_etl.remote.http.connection import callable_address, http_client

TIMEOUT_SECONDS = 1.0


@pytest.mark.parametrize(
    ("name", "value"),
    [("no_proxy", "[::1]"), ("https_proxy", "http://proxy:port"), ("https_proxy", "http://user:p#w@proxy:3128")],
)
def test_a_proxy_that_cannot_be_one_is_said_without_its_text(
    monkeypatch: pytest.MonkeyPatch, name: str, value: str
) -> None:
    """78; httpx's own error is no ValueError, and quotes the password as a port."""
    monkeypatch.setenv("https_proxy", "http://127.0.0.1:9")
    monkeypatch.setenv(name, value)
    with pytest.raises(ConfigurationError, match=r"check the environment's proxies \(HTTPS_PROXY") as refused:
        http_client("pacs.example", TIMEOUT_SECONDS)
    assert "'p'" not in str(refused.value)
    assert refused.value.__suppress_context__


@pytest.mark.parametrize("proxy", ["http://proxy..corp:3128", f"http://{'a' * 64}:3128"])
def test_a_proxy_whose_name_cannot_be_asked_for_is_said_at_the_first_request(
    monkeypatch: pytest.MonkeyPatch, proxy: str
) -> None:
    monkeypatch.setenv("http_proxy", proxy)
    monkeypatch.delenv("no_proxy", raising=False)
    monkeypatch.delenv("NO_PROXY", raising=False)
    refused = pytest.raises(ConfigurationError, match="check the environment's proxies")
    named = callable_address("pacs.example", "dicom.base_url")
    with http_client("pacs.example", TIMEOUT_SECONDS) as http, refused, named:
        http.get("http://pacs.example/")
