"""Where a folder lies in Azure, by its abfss address (design/spark.md: Azure storage)."""

from __future__ import annotations

import re
from dataclasses import dataclass

_ABFSS = re.compile(
    r"(?P<scheme>abfss?)://(?P<container>[A-Za-z0-9$][A-Za-z0-9._-]*)"
    r"@(?P<account>[a-z0-9-]+)\.dfs\.(?P<suffix>[a-z0-9.-]+)(?P<path>/[^?#]*)?"
)
# delta-rs opens no address of another host (tried: dfs.core.usgovcloudapi.net, dfs.core.chinacloudapi.cn).
_SUFFIXES = ("core.windows.net", "fabric.microsoft.com")


@dataclass(frozen=True, slots=True)
class AbfsUri:
    """One folder of a container: ``path`` without slashes at its ends, empty for the container itself.

    A OneLake address has a workspace where others have a container. ``scheme`` is abfss, or abfs, over which Hadoop
    speaks to an endpoint without TLS (Azurite).
    """

    scheme: str
    container: str
    account: str
    suffix: str
    path: str

    @property
    def dfs_host(self) -> str:
        return f"{self.account}.dfs.{self.suffix}"

    @property
    def blob_host(self) -> str:
        return f"{self.account}.blob.{self.suffix}"

    @property
    def key(self) -> str:
        """The path within the account, as filesystems take it: the container comes first."""
        return f"{self.container}/{self.path}".rstrip("/")

    def __str__(self) -> str:
        return f"{self.scheme}://{self.container}@{self.dfs_host}/{self.path}".rstrip("/")


def is_remote(uri: str) -> bool:
    """Whether ``uri`` is an address, and no folder of this machine."""
    return "://" in uri and not uri.startswith("file://")


def parse_abfs_uri(text: str) -> AbfsUri:
    """The address that ``text`` says. Raises ValueError, in the words of a message, when it is none."""
    match = _ABFSS.fullmatch(text.strip())
    if match is None:
        raise ValueError("expected a folder, or abfss://container@account.dfs.core.windows.net/path")
    if match["suffix"] not in _SUFFIXES:
        raise ValueError("expected an account of dfs.core.windows.net, or onelake.dfs.fabric.microsoft.com")
    path = (match["path"] or "").strip("/")
    if any(part in ("", ".", "..") for part in path.split("/")) and path:
        raise ValueError("expected a path without empty parts, . and ..")
    return AbfsUri(match["scheme"], match["container"], match["account"], match["suffix"], path)
