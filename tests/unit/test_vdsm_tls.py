"""A host proves who it is, and so does the engine."""

import asyncio
import ssl
import subprocess
from contextlib import asynccontextmanager

import pytest
from vdsm_script import ScriptedHost, ctx, run

from engine_pg.errors import HostUnreachable


@pytest.fixture(scope="module")
def folder(tmp_path_factory):
    """A folder with two certificates, each its own authority: `ours` and `strange`."""
    folder = tmp_path_factory.mktemp("certificates")
    for name in ("ours", "strange"):
        words = "req -x509 -newkey ec -pkeyopt ec_paramgen_curve:P-256 -nodes -days 2"
        subject = "-subj /CN=host -addext subjectAltName=IP:127.0.0.1"
        files = f"-keyout {folder}/{name}.key -out {folder}/{name}.pem"
        subprocess.run(
            ["openssl", *f"{words} {subject} {files}".split()], check=True, capture_output=True
        )
    return folder


def context(folder, side, name):
    context = ssl.SSLContext(side)
    context.verify_mode = ssl.CERT_REQUIRED
    context.load_cert_chain(folder / f"{name}.pem", folder / f"{name}.key")
    context.load_verify_locations(folder / "ours.pem")
    return context


@asynccontextmanager
async def connecting(folder, *, host="ours", engine="ours"):
    server = context(folder, ssl.PROTOCOL_TLS_SERVER, host)
    client = context(folder, ssl.PROTOCOL_TLS_CLIENT, engine)
    async with ScriptedHost(tls=server) as scripted:
        yield scripted, scripted.driver(ssl=client)


def test_calls_and_losses_are_the_same_over_tls(folder):
    async def main():
        async with connecting(folder) as (host, driver):
            await driver.connect(ctx())
            call = asyncio.ensure_future(driver.stats(ctx()))
            await host.request("Host.getStats")
            await driver.ping(ctx())
            await driver.close()
            with pytest.raises(HostUnreachable):
                await call

    run(main)


@pytest.mark.parametrize("names", [{"host": "strange"}, {"engine": "strange"}])
def test_a_stranger_is_not_talked_to(folder, names):
    async def main():
        async with connecting(folder, **names) as (host, driver):
            with pytest.raises(HostUnreachable):
                await driver.connect(ctx())
            assert not host.requests

    run(main)


def test_a_host_without_tls_is_not_talked_to(folder):
    async def main():
        async with ScriptedHost() as host:
            driver = host.driver(ssl=context(folder, ssl.PROTOCOL_TLS_CLIENT, "ours"))
            with pytest.raises(HostUnreachable):
                await driver.connect(ctx(timeout_s=0.5))

    run(main)
