"""TLS: who holds no key can neither join nor connect."""

import os
import re
import socket
import stat
import threading

import dask
import distributed
import pytest

from diffdask.cluster import connect, read_place
from diffdask.cluster.security import security_in
from diffdask.errors import BadJob

TLS = 'where = "laptop"\nworkers = 1\ntls = true\n'


@pytest.fixture(scope="module")
def scheduler(tmp_path_factory):
    """A scheduler with TLS, and the folder of its files."""
    folder = tmp_path_factory.mktemp("tls")
    with security_in(folder) as security:
        cluster = distributed.LocalCluster(
            n_workers=0,
            processes=False,
            protocol="tls",
            security=security,
            host="127.0.0.1",
            dashboard_address="127.0.0.1:0",
        )
        with cluster:
            (private,) = folder.iterdir()
            yield cluster.scheduler_address, private


def place_of(folder, address, private, **more):
    keys = {name: str(private / f"{name}.pem") for name in ("ca", "certificate", "key")} | more
    path = folder / "place.toml"
    path.write_text(f'where = "address"\naddress = "{address}"\n' + "".join(f'{k} = "{v}"\n' for k, v in keys.items()))
    return path


def test_one_option_brings_tls_to_a_laptop_too(tmp_path):
    (tmp_path / "place.toml").write_text(TLS)
    with connect(tmp_path / "place.toml") as client:
        assert client.submit(pow, 7, 2).result(timeout=60) == 49
        addresses = [client.scheduler.address, *client.scheduler_info()["workers"]]
        assert all(address.startswith("tls://127.0.0.1:") for address in addresses)


def test_a_place_file_with_certificates_reaches_a_scheduler_with_tls(scheduler, tmp_path):
    with connect(place_of(tmp_path, *scheduler)) as client:
        assert client.scheduler.address == scheduler[0]
        assert client.status == "running"


def test_an_address_with_tls_but_no_certificates_says_what_to_write(scheduler):
    told = 'needs certificates: give --on a place file with where = "address"'
    with pytest.raises(BadJob, match=told), connect(scheduler[0]):
        pass


def test_a_strangers_certificate_is_refused(scheduler, tmp_path):
    with security_in(tmp_path):
        (private,) = tmp_path.iterdir()
        place = place_of(tmp_path, scheduler[0], private)
        soon = dask.config.set({"distributed.comm.timeouts.connect": "1s"})
        with soon, pytest.raises(BadJob, match="no scheduler answers"), connect(place):
            pass


def test_an_address_without_tls_is_refused_until_it_is_said(scheduler, tmp_path):
    path = place_of(tmp_path, "tcp://10.0.0.1:8786", scheduler[1])
    with pytest.raises(BadJob, match=r"is without TLS: .* or say tls = false"), connect(path):
        pass


@pytest.mark.parametrize("host", ["10.0.0.1", "node042", "127.0.0.1.example.org", "[2001:db8::1]"])
def test_another_machines_address_without_tls_says_which_file_to_write(host):
    told = rf'is without TLS: .* where = "address" / address = "tcp://{re.escape(host)}:8786" / tls = false'
    with pytest.raises(BadJob, match=told), connect(f"tcp://{host}:8786"):
        pass


def test_the_file_that_is_told_is_a_place(tmp_path):
    with pytest.raises(BadJob) as told, connect("tcp://10.0.0.1:8786"):
        pass
    (tmp_path / "place.toml").write_text(str(told.value).rpartition("path: ")[2].replace(" / ", "\n"))
    place = read_place(tmp_path / "place.toml")
    assert (place["where"], place["address"], place["tls"]) == ("address", "tcp://10.0.0.1:8786", False)


@pytest.mark.parametrize("host", ["127.0.0.1", "localhost", "[::1]", "127.8.8.8"])
def test_this_machines_address_needs_no_tls(host):
    soon = dask.config.set({"distributed.comm.timeouts.connect": "1s"})
    with soon, pytest.raises(BadJob, match="no scheduler answers at"), connect(f"tcp://{host}:1"):
        pass


def test_a_server_that_is_no_scheduler_is_told():
    with socket.create_server(("127.0.0.1", 0)) as server:

        def answer():
            asked, _ = server.accept()
            with asked:
                asked.sendall(b"HTTP/1.1 400 Bad Request\r\n\r\n")

        threading.Thread(target=answer, daemon=True).start()
        soon = dask.config.set({"distributed.comm.timeouts.connect": "1s"})
        address = f"tcp://127.0.0.1:{server.getsockname()[1]}"
        with soon, pytest.raises(BadJob, match=f"no scheduler answers at '{address}'"), connect(address):
            pass


def test_a_missing_or_broken_file_is_named(scheduler, tmp_path):
    address, private = scheduler
    (tmp_path / "broken.pem").write_text("no PEM")
    place = place_of(tmp_path, address, private, key=tmp_path / "absent.pem")
    with pytest.raises(BadJob, match=r"key = '.*absent.pem' is no file"), connect(place):
        pass
    place = place_of(tmp_path, address, private, certificate=tmp_path / "broken.pem")
    with pytest.raises(BadJob, match="do not make a TLS client"), connect(place):
        pass


def test_the_key_of_a_run_is_its_owners_alone_and_gone_afterwards(tmp_path):
    with security_in(tmp_path):
        (private,) = tmp_path.iterdir()
        assert stat.S_IMODE(os.stat(private).st_mode) == 0o700
        for path in private.iterdir():
            assert stat.S_IMODE(path.stat().st_mode) == 0o600
    assert not list(tmp_path.iterdir())
