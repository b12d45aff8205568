"""Headers that are asked for at the service, as the columns of one design: narrow rows, whatever the headers weigh."""

from __future__ import annotations

from collections.abc import Callable, Iterable, Iterator, Sequence
from dataclasses import dataclass
from itertools import groupby, islice

import pyarrow as pa

from dicom_etl.core.attributes import DEFAULT_PARTITION, INSTANCE_KEY
from dicom_etl.core.errors import ServiceUnavailable
from dicom_etl.dicomweb.resources import is_uid
from dicom_etl.dicomweb.retrieve import Header, instance_headers
from dicom_etl.dicomweb.search import partitions
from dicom_etl.outputs.columns.batches import batch_parser
from dicom_etl.outputs.columns.design import ColumnDesign
from dicom_etl.remote.http.client import HttpClient

Key = tuple[str, str, str, str]
# Headers have megabytes: so few wait to be parsed.
_AT_ONCE = 64
_MANY = 20


@dataclass(frozen=True, slots=True)
class Served:
    """What the service answered for some keys.

    ``rows`` have the columns of INSTANCE_KEY, ``headerState``, ``headerQuality`` and those of the design. ``gone`` are
    keys that it does not have, ``failing`` those whose header it fails to give, or cannot be asked for.
    """

    rows: pa.Table
    gone: tuple[Key, ...]
    failing: tuple[Key, ...]


class HeaderService:
    """Asks the service for the headers of instances; whether it has partitions is asked once."""

    def __init__(self, client: HttpClient, design: ColumnDesign, connections: int) -> None:
        self._client = client
        self._connections = connections
        self._parse = batch_parser(design)
        self._named = partitions(client) is not None

    def ask(self, keys: Sequence[Key]) -> Served:
        """The headers of these keys as they are now, several side by side.

        Raises as ``instance_headers``, and ServiceUnavailable where it fails to give any of many: then the reason lies
        in the service, and not in the instances.
        """
        tables, gone, failing = [], [], []
        answers = self._answers(keys)
        while taken := list(islice(answers, _AT_ONCE)):
            gone += [key for key, answer in taken if answer is None]
            failing += [key for key, answer in taken if answer == ""]
            tables.append(self._parsed([(key, answer) for key, answer in taken if answer]))
        tried = sum(all(map(is_uid, key[1:])) for key in failing)
        if tried == len(keys) >= _MANY:
            raise ServiceUnavailable(f"the DICOM service gave none of {tried} headers: run again later")
        return Served(pa.concat_tables(tables or [self._parsed([])]), tuple(gone), tuple(failing))

    def _answers(self, keys: Iterable[Key]) -> Iterator[tuple[Key, Header]]:
        for name, some in groupby(sorted(keys), key=lambda key: key[0]):
            segment = name if self._named else None
            if segment is None and name != DEFAULT_PARTITION:
                yield from ((key, None) for key in some)  # its partitions were switched off: no address has them
                continue
            wanted = [key[1:] for key in some]
            answers = instance_headers(self._client, segment, wanted, connections=self._connections)
            yield from (((name, *uids), answer) for uids, answer in answers)

    def _parsed(self, headers: Sequence[tuple[Key, str]]) -> pa.Table:
        places = pa.array(range(len(headers)), pa.int64())
        texts = pa.array([text for _, text in headers], pa.string())
        batch = pa.record_batch({"runId": places, "sequence": places, "metadata": texts})
        parsed = pa.Table.from_batches(list(self._parse(iter([batch])))) if headers else _empty(self._parse)
        keys = list(zip(*(key for key, _ in headers), strict=True)) or [()] * len(INSTANCE_KEY)
        columns = {name: pa.array(values, pa.string()) for name, values in zip(INSTANCE_KEY, keys, strict=True)}
        names = parsed.column_names[2:]
        return pa.table({**columns, **{name: parsed[name] for name in names}})


def _empty(parse: Callable[[Iterator[pa.RecordBatch]], Iterator[pa.RecordBatch]]) -> pa.Table:
    """No rows, in the columns of one."""
    place = pa.array([0], pa.int64())
    one = pa.record_batch({"runId": place, "sequence": place, "metadata": pa.array(["{}"], pa.string())})
    return pa.Table.from_batches(list(parse(iter([one])))).slice(0, 0)
