"""DELETE over HTTP on the three levels (design/service-protocol.md: Deletion)."""

from __future__ import annotations

import pytest


@pytest.fixture
def study(api, dicom, uid):
    """Series A with two instances, series B with one, of one study."""
    study, series = uid(), uid()
    files = [dicom(study=study, series=series), dicom(study=study, series=series), dicom(study=study)]
    assert api.store(*files).status_code == 200
    return files


def metadata_status(api, path):
    return api.get(path + "/metadata", headers={"accept": "application/dicom+json"}).status_code


def test_an_instance_goes_and_its_siblings_stay(api, study):
    """204; the other instances of series and study are there; the second time it is 404."""
    assert api.delete(study[0].path).status_code == 204
    assert [metadata_status(api, file.path) for file in study] == [404, 200, 200]
    again = api.delete(study[0].path)
    assert (again.status_code, again.text) == (404, "The specified instance cannot be found.")


def test_a_series_goes_and_the_others_stay(api, study):
    """204; all instances of the series are gone, those of the other stay."""
    path = f"/studies/{study[0].study}/series/{study[0].series}"
    assert api.delete(path).status_code == 204
    assert [metadata_status(api, file.path) for file in study] == [404, 404, 200]
    assert api.delete(path).status_code == 404


def test_a_study_goes_whole(api, study):
    """204 and one Delete row for each instance."""
    path = f"/studies/{study[0].study}"
    assert api.delete(path).status_code == 204
    rows = api.rows(study[0].study)
    assert len(rows) == 6
    assert [row["action"] for row in rows] == ["Create"] * 3 + ["Delete"] * 3
    assert {row["sopInstanceUid"] for row in rows[3:]} == {file.sop for file in study}
    assert {row["state"] for row in rows} == {"Deleted"}
    assert api.delete(path).status_code == 404


def test_an_emptied_series_vanishes(api, study):
    """Deleting the last instance of a series takes the series with it, and of the study the study."""
    last = study[2]
    assert api.delete(last.path).status_code == 204
    assert metadata_status(api, f"/studies/{last.study}/series/{last.series}") == 404
    assert metadata_status(api, f"/studies/{last.study}") == 200
    assert api.delete(study[0].path).status_code == 204
    assert api.delete(study[1].path).status_code == 204
    assert metadata_status(api, f"/studies/{last.study}") == 404


@pytest.mark.parametrize("path", ["/studies/x", "/studies/1.2/series/x", "/studies/1.2/series/1.3/instances/x"])
def test_a_bad_uid_is_refused(api, path):
    """400 at each level."""
    assert api.delete(path).status_code == 400


def test_any_accept_header_will_do(api, study):
    """DELETE has no content and looks at no Accept header."""
    assert api.delete(study[0].path, headers={"accept": "image/png"}).status_code == 204
