"""QIDO-RS: the six searches, their parameters and answers (design/service-protocol.md: QIDO-RS)."""

from __future__ import annotations

from collections.abc import Iterator, Mapping
from dataclasses import dataclass, field
from typing import Any

from pydicom.datadict import dictionary_VR, tag_for_keyword
from starlette.requests import Request
from starlette.responses import Response

from dicom_emulator.http.answers import dicom_json, require_dicom_json
from dicom_emulator.http.errors import BadRequest
from dicom_emulator.http.parameters import refuse_tags
from dicom_emulator.http.routing import partition_of, service_of, version_of
from dicom_emulator.routes.matching import Matcher, matcher
from dicom_emulator.routes.resources import (
    COMPUTED,
    DEFAULT_TAGS,
    LEVELS_OF_ROUTE,
    MORE_TAGS,
    SEARCHABLE,
    Found,
    search_resources,
)
from dicom_emulator.state.querytags import DISABLED, READY, QueryTag
from dicom_emulator.state.uids import uid_from_path

_PATH_TAGS = {"study": 0x0020000D, "series": 0x0020000E}
_RESERVED = frozenset({"includefield", "limit", "offset", "fuzzymatching"})


@dataclass
class Search:
    """A search as asked; `matchers` by tag, `fields` the tags to answer with."""

    route: str
    limit: int = 100
    offset: int = 0
    fuzzy: bool = False
    matchers: dict[int, Matcher] = field(default_factory=dict)
    fields: set[int] = field(default_factory=set)
    by_tags: dict[int, tuple[QueryTag, Matcher]] = field(default_factory=dict)
    """Extended query tags that are searched by."""
    erroneous: list[str] = field(default_factory=list)
    """Those of them, as they were written, whose index has errors."""


def search(route: str, request: Request) -> Response:
    """200 with an array, newest first; 204 when nothing matches. Raises BadRequest (400), 406.

    `route` is a key of LEVELS_OF_ROUTE.
    """
    version_of(request)
    refuse_tags(request)
    require_dicom_json(request)
    partition = partition_of(request)
    uids = {part: uid_from_path(part, request.path_params[part]) for part in _PATH_TAGS if part in request.path_params}
    service = service_of(request)
    tags = {int(tag.attribute.path, 16): tag for tag in service.query_tags.all()}
    asked = read_search(route, request.query_params.multi_items(), uids, tags)
    with service.lock:
        matching = (one for one in search_resources(service, partition, route, uids) if _matches(one, asked))
        results = list(_page(matching, asked))
    headers = {"erroneous-dicom-attributes": ",".join(asked.erroneous)} if asked.erroneous else None
    return dicom_json(results, headers=headers) if results else Response(status_code=204, headers=headers)


def read_search(
    route: str, query: list[tuple[str, str]], uids: Mapping[str, str], tags: Mapping[int, QueryTag]
) -> Search:
    """The search in a query; `tags` are the extended query tags.

    Raises BadRequest (400) for what is out of range, unknown or twice.
    """
    asked = Search(route)
    values = {name.lower(): value for name, value in query if name.lower() in _RESERVED - {"includefield"}}
    asked.limit = _number(values, "limit", 100, 1, 200)
    asked.offset = _number(values, "offset", 0, 0, 2**31 - 1)
    asked.fuzzy = _flag(values, "fuzzymatching")
    for name, value in query:
        if name.lower() not in _RESERVED:
            _add_matcher(asked, name, value, tags)
    included = [one.strip() for name, value in query if name.lower() == "includefield" for one in value.split(",")]
    asked.fields = _fields(route, included) | asked.matchers.keys() | {_PATH_TAGS[part] for part in uids}
    return asked


def _add_matcher(asked: Search, name: str, value: str, tags: Mapping[int, QueryTag]) -> None:
    tag = _tag(name)
    if tag is None:
        raise BadRequest(f"Invalid QIDO-RS query. Unknown query parameter '{name}'.")
    levels = LEVELS_OF_ROUTE[asked.route]
    extended = None
    if not any(tag in SEARCHABLE[level] for level in levels):
        extended = _ready(tags.get(tag), levels, name)
    if tag in asked.matchers or tag in asked.by_tags:
        raise BadRequest(f"Invalid QIDO-RS query. Duplicate AttributeId '{name}'.")
    if not value.strip():
        raise BadRequest(f"Invalid QIDO-RS query. AttributeId '{name}' has an empty value.")
    try:
        match = matcher(extended.attribute.vr if extended else dictionary_VR(tag), value, asked.fuzzy)
    except ValueError:
        raise BadRequest(f"Invalid QIDO-RS query. The value of '{name}' is invalid.") from None
    if extended is None:
        asked.matchers[tag] = match
        return
    asked.by_tags[tag] = extended, match
    if extended.errors:
        asked.erroneous.append(name)


def _ready(tag: QueryTag | None, levels: tuple[str, ...], name: str) -> QueryTag:
    """The extended query tag, when a route of these levels is searched by it. Raises BadRequest (400)."""
    if tag is None or tag.status != READY or tag.level.lower() not in levels:
        raise BadRequest(f"Invalid QIDO-RS query. AttributeId {name} is not queryable.")
    if tag.query_status == DISABLED:
        raise BadRequest(f"Query is disabled on specified attribute '{name}'.")
    return tag


def _fields(route: str, included: list[str]) -> set[int]:
    """The tags of the answer: the defaults of the route's levels, and of those included what a level offers."""
    levels = LEVELS_OF_ROUTE[route]
    fields = {tag for level in levels for tag in DEFAULT_TAGS[level]}
    offered = {tag for level in levels for tag in (*MORE_TAGS[level], *COMPUTED[level])} | fields
    for name in included:
        tag = _tag(name)
        if name.lower() == "all":
            fields |= {tag for level in levels for tag in MORE_TAGS[level]}
        elif tag is None:
            raise BadRequest(f"Invalid QIDO-RS query. IncludeField has unknown attribute '{name}'.")
        elif tag in offered:
            fields.add(tag)
    return fields


def _matches(resource: Found, asked: Search) -> bool:
    return all(match(resource.values(tag)) for tag, match in asked.matchers.items()) and all(
        match(resource.indexed(tag)) for tag, match in asked.by_tags.values()
    )


def _page(matching: Iterator[Found], asked: Search) -> Iterator[dict[str, Any]]:
    for number, resource in enumerate(matching):
        if number >= asked.offset + asked.limit:
            return
        if number >= asked.offset:
            found = resource.dataset(asked.fields)
            for tag, _ in asked.by_tags.values():
                found |= resource.named_element(tag.attribute)
            yield dict(sorted(found.items()))


def _tag(name: str) -> int | None:
    """The tag of a keyword (in its own case) or of eight hex digits."""
    tag = tag_for_keyword(name)
    if tag is None and len(name) == 8:
        try:
            return int(name, 16)
        except ValueError:
            return None
    return tag


def _number(values: Mapping[str, str], name: str, default: int, least: int, most: int) -> int:
    text = values.get(name)
    if text is None:
        return default
    try:
        number = int(text)
    except ValueError:
        raise BadRequest(f"Invalid QIDO-RS query. Specified {name} value is not a valid integer.") from None
    if not least <= number <= most:
        raise BadRequest(
            f"Invalid QIDO-RS query. Specified {name} value {number} is outside the allowed range of {least}..{most}."
        )
    return number


def _flag(values: Mapping[str, str], name: str) -> bool:
    text = values.get(name, "false").lower()
    if text not in ("true", "false"):
        raise BadRequest("Invalid QIDO-RS query. Specified fuzzymatching value is not a valid boolean.")
    return text == "true"
