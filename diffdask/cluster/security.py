"""TLS between client, scheduler and workers."""

from __future__ import annotations

import contextlib
import os
import tempfile
from collections.abc import Iterator
from pathlib import Path
from typing import Any

from diffdask.errors import BadJob


def temporary_security() -> Any:
    """Make a key and a certificate for one cluster, for as long as it lives.

    Who does not hold the key can neither join as a worker nor connect as a client.

    Returns
    -------
    distributed.Security

    Raises
    ------
    BadJob
        If the package ``cryptography`` is missing.
    """
    from distributed.security import Security

    try:
        return Security.temporary()
    except ImportError as error:
        raise BadJob("tls = true needs the package 'cryptography': pip install cryptography") from error


@contextlib.contextmanager
def security_in(folder: str | Path) -> Iterator[Any]:
    """Make a key and a certificate for one cluster, in files that all nodes see, and remove them at the end.

    Parameters
    ----------
    folder
        Seen by all nodes. The files lie in a folder of their own in it that only this user may enter.

    Yields
    ------
    distributed.Security
    """
    from distributed.security import Security

    made = temporary_security().get_tls_config_for_role("worker")
    with tempfile.TemporaryDirectory(dir=folder, prefix=".diffdask-tls-") as private:
        paths = {}
        for name, pem in (("ca", made["ca_file"]), ("certificate", made["cert"]), ("key", made["key"])):
            paths[name] = str(Path(private) / f"{name}.pem")
            with open(os.open(paths[name], os.O_WRONLY | os.O_CREAT | os.O_EXCL, 0o600), "w") as file:
                file.write(pem)
        roles = ("scheduler", "worker", "client")
        yield Security(
            require_encryption=True,
            tls_ca_file=paths["ca"],
            **{f"tls_{role}_cert": paths["certificate"] for role in roles},
            **{f"tls_{role}_key": paths["key"] for role in roles},
        )


def security_of_files(*, ca: str, certificate: str, key: str) -> Any:
    """Security of a client that holds a certificate in files.

    Parameters
    ----------
    ca
        PEM file of the authority that signed the scheduler's certificate.
    certificate, key
        PEM files of this client.

    Returns
    -------
    distributed.Security

    Raises
    ------
    BadJob
        If a file is absent or is no PEM file.
    """
    import ssl

    from distributed.security import Security

    files = {"ca": ca, "certificate": certificate, "key": key}
    for name, path in files.items():
        if not Path(path).expanduser().is_file():
            raise BadJob(f"{name} = '{path}' is no file; TLS needs ca, certificate and key as PEM files")
    ca, certificate, key = (str(Path(path).expanduser()) for path in files.values())
    security = Security(tls_ca_file=ca, tls_client_cert=certificate, tls_client_key=key, require_encryption=True)
    try:
        security.get_connection_args("client")
    except (ssl.SSLError, OSError) as error:
        raise BadJob(f"'{ca}', '{certificate}' and '{key}' do not make a TLS client: {error}") from error
    return security
