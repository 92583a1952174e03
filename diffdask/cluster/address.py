"""A scheduler that is running already, started by someone else."""

from __future__ import annotations

import contextlib
import ipaddress
import logging
from typing import Any

from diffdask.cluster.capacity import Capacity
from diffdask.cluster.keys import Key, fill_in
from diffdask.cluster.security import security_of_files
from diffdask.errors import BadJob

_log = logging.getLogger(__name__)

KEYS = {
    "address": Key("", 'address of the scheduler, as in "tls://host:8786"', is_required=True),
    "tls": Key(True, "TLS; false admits a tcp:// address"),
    "ca": Key("", "PEM file of the authority that signed the scheduler's certificate"),
    "certificate": Key("", "PEM file of this client's certificate"),
    "key": Key("", "PEM file of this client's key"),
}

_OPEN = "whoever reaches it can run code there, and what is sent can be read on the way"


def open_client(place: dict[str, Any], stack: contextlib.ExitStack) -> Any:
    """Connect to the scheduler at the place's address."""
    address = place["address"]
    if not place["tls"]:
        return open_address(address)
    if not is_tls(address):
        raise BadJob(
            f"address = '{address}' is without TLS: {_OPEN}. Start the scheduler with TLS and write tls://..., "
            "or say tls = false"
        )
    return open_address(
        address, security=security_of_files(ca=place["ca"], certificate=place["certificate"], key=place["key"])
    )


def place_of(address: str) -> dict[str, Any]:
    """Describe the place of an address that is given without a file; TLS is what its scheme says."""
    return fill_in({"address": address, "tls": is_tls(address)}, KEYS, path="")


def open_bare(address: str) -> Any:
    """Connect to an address that is given without a file: with TLS, or on this machine.

    Raises
    ------
    BadJob
        If it is another machine's and without TLS, or no scheduler answers.
    """
    if not (is_tls(address) or _is_local(address)):
        raise BadJob(
            f"'{address}' is without TLS: {_OPEN}. Start the scheduler with TLS and give tls://..., or write a place "
            f'file with these three lines, and give its path: where = "address" / address = "{address}" / tls = false'
        )
    return open_address(address)


def capacity(place: dict[str, Any]) -> Capacity:
    """How much the place can do at once: only the scheduler knows, and who makes a plan asks it."""
    return Capacity(
        told=f"the scheduler at {place['address']}", cost_per_core_hour=place.get("cost_per_core_hour", 0.0)
    )


def open_address(address: str, *, security: Any = None) -> Any:
    """Connect to a scheduler; what TLS files Dask's own configuration names are used if none are given.

    Raises
    ------
    BadJob
        If no scheduler answers.
    """
    import distributed

    if not (is_tls(address) or _is_local(address)):
        _log.warning("the scheduler at %s is without TLS: %s", address, _OPEN)
    security = security or distributed.Security()
    # asked now: a client that fails on it half-way is waited for, for a minute, when it is thrown away
    if is_tls(address) and security.get_connection_args("client")["ssl_context"] is None:
        raise BadJob(
            f"'{address}' needs certificates: give --on a place file with where = \"address\", ca, certificate and "
            "key; deploy/address.toml is one"
        )
    try:
        return distributed.Client(address, security=security, set_as_default=False)
    except (OSError, ValueError, MemoryError) as error:
        # ValueError: a protocol that Dask does not know; MemoryError: an answer such as HTTP/1.1, taken for a length
        raise BadJob(
            f"no scheduler answers at '{address}': {error}; is it running, and reachable from here?"
        ) from error


def is_tls(address: str) -> bool:
    """Whether what is sent to an address is encrypted."""
    return address.startswith(("tls://", "wss://"))


def _is_local(address: str) -> bool:
    scheme, _, where = address.partition("://")
    host = where.rsplit(":", 1)[0].strip("[]")
    if scheme == "inproc" or host == "localhost":
        return True
    try:
        return ipaddress.ip_address(host).is_loopback
    except ValueError:  # a name, be it one that begins like an address of this machine
        return False
