"""QIDO-RS over HTTP: matching, fields, paging and computed attributes (design/service-protocol.md: QIDO-RS)."""

from __future__ import annotations

import pytest

JSON = {"accept": "application/dicom+json"}


@pytest.fixture
def find(api):
    """Searches; an empty list for 204."""

    def search(path, **query):
        answer = api.get(path, params=query, headers=JSON)
        assert answer.status_code in (200, 204), answer.text
        return answer.json() if answer.status_code == 200 else []

    return search


@pytest.fixture
def study(api, dicom, uid):
    """A study of a CT series with two instances and an MR series with one; its patient id is unique."""
    study, series, patient = uid(), uid(), uid()[-20:]
    common = {
        "00080020": "20240501", "00080050": "ACC1", "00080090": "House^Gregory", "00081030": "Thorax",
        "00100010": "Müller^Jürgen", "00100020": patient, "00100030": "19700203", "00081090": "Model 1",
    }  # fmt: skip
    charset = {"00080005": "ISO_IR 192"}
    files = [
        dicom(common | charset, study=study, series=series),
        dicom(common | charset, study=study, series=series),
        dicom(common | charset | {"00080060": "MR"}, study=study),
    ]
    assert api.store(*files).status_code == 200
    return files


def patient_of(api, file):
    return api.metadata(file)["00100020"]["Value"][0]


def values(found, tag):
    return [one[tag]["Value"][0] for one in found]


def test_nothing_found_is_no_content(api, uid):
    """204 for a study that is not there."""
    assert api.get("/studies", params={"StudyInstanceUID": uid()}, headers=JSON).status_code == 204


def test_a_study_has_its_default_fields(find, study):
    """The eight default study attributes, and no others."""
    (found,) = find("/studies", StudyInstanceUID=study[0].study)
    assert sorted(found) == [
        "00080020", "00080050", "00080090", "00081030", "00100010", "00100020", "00100030", "0020000D",
    ]  # fmt: skip
    assert found["00081030"] == {"vr": "LO", "Value": ["Thorax"]}


def test_series_and_instances_carry_the_levels_above(find, study):
    """/series has study and series fields, /studies/{s}/series only its own; so for instances."""
    uid = study[0].study
    (mr,) = find("/series", StudyInstanceUID=uid, Modality="MR")
    assert (mr["0020000D"]["Value"], mr["0020000E"]["Value"]) == ([uid], [study[2].series])
    below = find(f"/studies/{uid}/series")
    assert {tuple(sorted(one)) for one in below} == {("00080060", "00081090", "0020000D", "0020000E")}
    instances = find("/instances", StudyInstanceUID=uid)
    assert set(values(instances, "00080018")) == {file.sop for file in study}
    assert "00100020" in instances[0]
    assert "00080060" in instances[0]


def test_the_six_routes_find_what_is_below_them(find, study):
    """Each route narrows by the UIDs of its path."""
    one, uid = study[0], study[0].study
    assert len(find("/studies", StudyInstanceUID=uid)) == 1
    assert len(find("/series", StudyInstanceUID=uid)) == 2
    assert len(find("/instances", StudyInstanceUID=uid)) == 3
    assert len(find(f"/studies/{uid}/series")) == 2
    assert len(find(f"/studies/{uid}/instances")) == 3
    assert len(find(f"/studies/{uid}/series/{one.series}/instances")) == 2


@pytest.mark.parametrize(
    "query",
    [
        {"StudyDate": "20240501"}, {"00080020": "20240430-20240501"}, {"StudyDate": "20240501-"},
        {"StudyDate": "-20240501"}, {"AccessionNumber": "ACC1"}, {"StudyDescription": "Thorax"},
        {"PatientBirthDate": "19700203"}, {"ModalitiesInStudy": "MR"}, {"StudyDescription": "Th*x"},
        {"AccessionNumber": "AC?1"}, {"PatientName": "*"}, {"PatientName": "muller^jurgen"},
        {"PatientName": "MÜLLER^JÜRGEN"}, {"PatientName": "Mül*"}, {"ReferringPhysicianName": "house^gregory"},
        {"PatientName": "jur", "fuzzymatching": "true"}, {"PatientName": "Mül Jür", "fuzzymatching": "true"},
    ],
)  # fmt: skip
def test_a_matching_value_finds_the_study(api, find, study, query):
    """Exact values, ranges, wildcards, and names without case or accents match."""
    found = find("/studies", PatientID=patient_of(api, study[0]), **query)
    assert values(found, "0020000D") == [study[0].study]


@pytest.mark.parametrize(
    "query",
    [
        {"StudyDate": "20240502"}, {"StudyDate": "20240502-20240601"}, {"AccessionNumber": "ACC"},
        {"StudyDescription": "horax"}, {"ModalitiesInStudy": "US"}, {"PatientName": "Müller"},
        {"PatientName": "rgen", "fuzzymatching": "true"}, {"AccessionNumber": "ACC1?"},
    ],
)  # fmt: skip
def test_another_value_does_not_find_it(api, find, study, query):
    """Other dates, parts of values and parts of words do not match."""
    patient = patient_of(api, study[0])
    assert len(find("/studies", PatientID=patient)) == 1
    assert find("/studies", PatientID=patient, **query) == []


@pytest.mark.parametrize(
    ("path", "query"),
    [
        ("/studies", {"limit": "0"}), ("/studies", {"limit": "201"}), ("/studies", {"limit": "x"}),
        ("/studies", {"offset": "-1"}), ("/studies", {"fuzzymatching": "yes"}), ("/studies", {"Rows": "512"}),
        ("/studies", {"00280010": "512"}), ("/studies", {"NoSuchKeyword": "1"}), ("/studies", {"PatientID": ""}),
        ("/studies", {"Modality": "CT"}), ("/studies", {"StudyDate": "May"}), ("/studies", {"StudyDate": "-"}),
        ("/studies", {"StudyDate": "20240502-20240501"}), ("/studies", {"includefield": "NoSuchKeyword"}),
        ("/studies", {"PatientID": "1", "00100020": "2"}), ("/studies/1.2/series", {"PatientID": "1"}),
        ("/studies/1.2/series/1.3/instances", {"Modality": "CT"}), ("/studies/x/series", {}),
    ],
)  # fmt: skip
def test_a_search_that_is_not_offered_is_refused(api, path, query):
    """400 for ranges, unsupported or unknown attributes, attributes of another level, bad dates, doubles."""
    assert api.get(path, params=query, headers=JSON).status_code == 400


def test_a_search_needs_an_acceptable_type(api):
    """406 when Accept leaves DICOM JSON out."""
    assert api.get("/studies", headers={"accept": "application/dicom"}).status_code == 406


def test_fields_are_added_by_keyword_tag_and_list(find, study):
    """includefield takes keywords, tags, lists and repeats; what a level does not offer is left out."""
    uid = study[0].study
    (found,) = find("/studies", StudyInstanceUID=uid, includefield="00201208,ModalitiesInStudy,Rows")
    assert found["00201208"]["Value"] == [3]
    assert found["00080061"]["Value"] == ["CT", "MR"]
    assert "00280010" not in found
    (everything,) = find("/studies", StudyInstanceUID=uid, includefield=["all", "00080005"])
    assert everything["00080005"] == {"vr": "CS", "Value": ["ISO_IR 192"]}


def test_a_series_counts_its_instances(find, study):
    """NumberOfSeriesRelatedInstances, asked for, is the number of its live instances."""
    found = find(f"/studies/{study[0].study}/series", includefield="NumberOfSeriesRelatedInstances")
    counts = {one["0020000E"]["Value"][0]: one["00201209"]["Value"][0] for one in found}
    assert counts == {study[0].series: 2, study[2].series: 1}


def test_limit_and_offset_page_the_newest_first(api, find, dicom, uid):
    """Studies come newest first; pages of one cover them; an offset beyond is 204."""
    patient = uid()[-20:]
    files = [dicom({"00100020": patient}) for _ in range(3)]
    for file in files:
        assert api.store(file).status_code == 200
    newest_first = [file.study for file in reversed(files)]
    assert values(find("/studies", PatientID=patient), "0020000D") == newest_first
    paged = [find("/studies", PatientID=patient, limit=1, offset=place) for place in range(4)]
    assert [values(page, "0020000D") for page in paged] == [[newest_first[0]], [newest_first[1]], [newest_first[2]], []]


def test_the_latest_value_that_is_not_null_wins(api, find, dicom, uid):
    """A later patient id replaces none; a later empty one does not replace it."""
    study, patient = uid(), uid()[-20:]
    steps = [(None, 202, None), (patient, 200, patient), (None, 202, patient)]
    for value, status, shown in steps:
        assert api.store(dicom({"00100020": value}, study=study)).status_code == status
        (found,) = find("/studies", StudyInstanceUID=study)
        assert found.get("00100020", {}).get("Value", [None]) == [shown]


def test_a_deleted_instance_is_not_found(api, find, study):
    """Counts and results follow a deletion."""
    assert api.delete(study[2].path).status_code == 204
    uid = study[0].study
    assert len(find(f"/studies/{uid}/instances")) == 2
    (found,) = find("/studies", StudyInstanceUID=uid, includefield="NumberOfStudyRelatedInstances")
    assert found["00201208"]["Value"] == [2]
    assert find("/series", StudyInstanceUID=uid, Modality="MR") == []


def test_several_uids_may_be_searched(find, study, uid):
    """A list of UIDs matches any of them."""
    assert len(find("/studies", StudyInstanceUID=f"{uid()},{study[0].study}")) == 1
