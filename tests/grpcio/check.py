#!/usr/bin/env python3
"""Checks the admin API with a client that is not ours: Python's grpcio, server reflection, and an operator's bundle.

    check.py DIRECTORY_OF_THE_PROGRAMS

Starts a master in a temporary folder, adds a viewer, and makes its calls from here. With PICKET_STEP_REPORT set, the
counts are written there.
"""

import contextlib
import os
import pathlib
import socket
import subprocess
import sys
import tempfile
import time
import unittest
import urllib.request

import grpc

import list_hosts

PROGRAMS = pathlib.Path(sys.argv[1]).resolve()
NAME = "master.example.org"
# How long the master may take to open its doors.
PATIENCE = 30


def free_ports(count):
    """Ports nobody listens on at this moment."""
    with contextlib.ExitStack() as stack:
        sockets = [stack.enter_context(socket.socket()) for _ in range(count)]
        for each in sockets:
            each.bind(("127.0.0.1", 0))
        return [each.getsockname()[1] for each in sockets]


def run(program, *arguments):
    """Runs one of our programs; it must succeed."""
    done = subprocess.run([PROGRAMS / program, *arguments], capture_output=True, text=True, timeout=60, check=False)
    if done.returncode != 0:
        raise AssertionError(f"{program} {' '.join(map(str, arguments))}: {done.stderr}")


class AdminApi(unittest.TestCase):
    """The admin API as a stranger's client sees it."""

    @classmethod
    def setUpClass(cls):
        cls.root = pathlib.Path(cls.enterClassContext(tempfile.TemporaryDirectory(prefix="picket-")))
        agents, admin, monitor = free_ports(3)
        data = cls.root / "data"
        run(
            "picket-master", "init", "--data-dir", data, "--trust-domain", "example.org", "--name", NAME,
            "--advertise", f"127.0.0.1:{agents}", "--admin-address", f"127.0.0.1:{admin}", "--plain-ca-key",
        )  # fmt: skip
        config = cls.root / "master.toml"
        config.write_text(
            f'data_dir = "{data}"\nagents.listen = "127.0.0.1:{agents}"\n'
            f'admin.listen = "127.0.0.1:{admin}"\nmetrics.listen = "127.0.0.1:{monitor}"\nca.key = "plain"\n'
        )
        log = cls.enterClassContext(open(cls.root / "master.log", "wb"))
        cls.master = subprocess.Popen([PROGRAMS / "picket-master", "run", "--config", config], stderr=log)
        cls.addClassCleanup(cls.stop)
        cls.wait_until_ready(f"http://127.0.0.1:{monitor}/readyz")
        cls.admin = data / "admin.bundle"
        cls.picketctl("host", "enroll", "oslo", "--label", "site=oslo", "--out", cls.root / "oslo.bundle")
        for role in ("viewer", "requester"):
            cls.picketctl("operator", "add", role, "--role", role, "--device", "script", "--out", cls.root / role)

    @classmethod
    def stop(cls):
        cls.master.terminate()
        cls.master.wait(timeout=15)

    @classmethod
    def wait_until_ready(cls, address):
        give_up = time.monotonic() + PATIENCE
        while True:
            try:
                with urllib.request.urlopen(address, timeout=1):
                    return
            except OSError as error:
                if cls.master.poll() is not None or time.monotonic() > give_up:
                    raise AssertionError((cls.root / "master.log").read_text()) from error
                time.sleep(0.1)

    @classmethod
    def picketctl(cls, *arguments):
        run("picketctl", "--bundle", cls.admin, *arguments)

    def refused(self, who, method):
        with self.assertRaises(grpc.RpcError) as raised:
            list_hosts.call(list_hosts.read(self.root / who), NAME, method)
        return raised.exception

    def test_a_viewer_lists_hosts_through_reflection(self):
        answer = list_hosts.call(list_hosts.read(self.root / "viewer"), NAME)
        self.assertEqual([(host.name, dict(host.labels)) for host in answer.hosts], [("oslo", {"site": "oslo"})])

    def test_an_admin_does_too_and_may_not_leave_out_a_name(self):
        answer = list_hosts.call(list_hosts.read(self.admin), NAME)
        self.assertEqual(len(answer.hosts), 1)
        self.assertEqual(self.refused(self.admin, "GetHost").code(), grpc.StatusCode.INVALID_ARGUMENT)

    def test_a_viewer_changes_nothing_and_a_requester_does_not_look(self):
        for who, method in (("viewer", "BanHost"), ("requester", "ListHosts")):
            refused = self.refused(who, method)
            self.assertEqual(refused.code(), grpc.StatusCode.PERMISSION_DENIED)
            self.assertIn(f"may not call {method}", refused.details())

    def test_a_host_is_not_let_in_and_a_wrong_name_is_not_the_master(self):
        host = list_hosts.read(self.root / "oslo.bundle")
        host["masters"] = list_hosts.read(self.admin)["masters"]
        viewer = list_hosts.read(self.root / "viewer")
        for bundle, name in ((host, NAME), (viewer, "other.example.org")):
            with self.assertRaises(grpc.RpcError) as raised:
                list_hosts.call(bundle, name)
            self.assertEqual(raised.exception.code(), grpc.StatusCode.UNAVAILABLE)


def main():
    result = unittest.main(argv=sys.argv[:1], verbosity=2, exit=False).result
    failed = len(result.failures) + len(result.errors)
    if report := os.environ.get("PICKET_STEP_REPORT"):
        with open(report, "a", encoding="ascii") as file:
            file.write(f"passed {result.testsRun - failed}\nfailed {failed}\n")
    sys.exit(failed > 0)


if __name__ == "__main__":
    main()
