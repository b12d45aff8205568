"""One lake holds one service: whose it is, and who is refused."""

from __future__ import annotations

import uuid

import pytest

from dicom_etl.core.errors import ConfigurationError, DataError
from dicom_etl.lake.lake_id import LakeIdentity, check_identity, new_identity, service_fingerprint

LAKE = uuid.UUID("6f1f8a52-3a52-4c8e-9f0e-4f1f0f6b7f11")
OURS = {
    "dicomEtl.lakeId": "6f1f8a52-3a52-4c8e-9f0e-4f1f0f6b7f11",
    "dicomEtl.service": "ws-scans.dicom.azurehealthcareapis.com",
    "dicomEtl.schemaVersion": "1",
    "delta.dataSkippingStatsColumns": "runId",
}


def test_the_identity_is_three_properties() -> None:
    """As they stand in the table's log."""
    identity = LakeIdentity(LAKE, "ws-scans.dicom.azurehealthcareapis.com")

    assert identity.properties == {k: v for k, v in OURS.items() if k.startswith("dicomEtl.")}
    assert identity.app_id("instance") == "6f1f8a52-3a52-4c8e-9f0e-4f1f0f6b7f11/instance"
    assert check_identity(OURS, identity.service) == identity
    assert check_identity(OURS) == identity


def test_every_new_lake_has_an_id_of_its_own() -> None:
    """So that a table that two lakes share is noticed."""
    assert new_identity("localhost").lake_id != new_identity("localhost").lake_id


def test_another_service_is_refused() -> None:
    """78, with both names and what to do."""
    with pytest.raises(ConfigurationError) as caught:
        check_identity(OURS, "localhost/dicom")

    assert str(caught.value) == (
        "this lake holds another service, ws-scans.dicom.azurehealthcareapis.com, not localhost/dicom: "
        "set lake.root to a lake of its own, or dicom.base_url to the service that it holds"
    )
    assert caught.value.exit_code == 78


def test_a_newer_schema_asks_for_an_upgrade() -> None:
    """65, before the service is compared."""
    with pytest.raises(
        DataError, match=r"^this lake has schema 2, this version knows up to 1: upgrade dicom-etl$"
    ) as caught:
        check_identity(OURS | {"dicomEtl.schemaVersion": "2"}, "localhost")
    assert caught.value.exit_code == 65


@pytest.mark.parametrize("key", ["dicomEtl.lakeId", "dicomEtl.service", "dicomEtl.schemaVersion"])
def test_a_table_without_our_properties_is_not_ours(key: str) -> None:
    """65: somebody else's table stands where ours must be."""
    with pytest.raises(DataError, match="was not made by dicom-etl"):
        check_identity({k: v for k, v in OURS.items() if k != key})


@pytest.mark.parametrize("wrong", [{"dicomEtl.lakeId": "12"}, {"dicomEtl.schemaVersion": "one"}])
def test_unreadable_properties_are_not_ours(wrong: dict[str, str]) -> None:
    """A damaged identity is never guessed."""
    with pytest.raises(DataError, match="was not made by dicom-etl"):
        check_identity(OURS | wrong)


@pytest.mark.parametrize(
    ("address", "expected"),
    [
        ("https://WS-Scans.dicom.AzureHealthcareAPIs.com", "ws-scans.dicom.azurehealthcareapis.com"),
        ("https://ws-scans.dicom.azurehealthcareapis.com/", "ws-scans.dicom.azurehealthcareapis.com"),
        ("https://ws-scans.dicom.azurehealthcareapis.com.:443", "ws-scans.dicom.azurehealthcareapis.com"),
        ("https://dicom.example.org:8443/Root/", "dicom.example.org:8443/Root"),
        ("http://dicom.example.org:80/root", "dicom.example.org/root"),
        ("http://dicom.example.org:443/root", "dicom.example.org:443/root"),
        ("https://dicom.example.org/root/sub", "dicom.example.org/root/sub"),
        ("https://[2001:DB8::1]:8443/a", "[2001:db8::1]:8443/a"),
        ("http://localhost:8080", "localhost"),
        ("http://LOCALHOST:53211/", "localhost"),
        ("http://127.0.0.1:9", "localhost"),
        ("http://127.8.8.8", "localhost"),
        ("http://[::1]:8080/dicom/", "localhost/dicom"),
    ],
)
def test_the_fingerprint_is_host_port_and_path(address: str, expected: str) -> None:
    """Lower case, without the scheme's own port; on loopback no port and one name."""
    assert service_fingerprint(address) == expected


def test_without_an_address_there_is_no_fingerprint() -> None:
    """78, as the setting is missing."""
    with pytest.raises(ConfigurationError, match=r"^dicom\.base_url is not set"):
        service_fingerprint("")
