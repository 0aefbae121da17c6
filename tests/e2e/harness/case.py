"""The base of every end-to-end test: one cluster for the class, started once."""

import sys
import time
import unittest

from .cluster import Cluster


class ClusterTest(unittest.TestCase):
    AGENTS = 1
    CONTROLLER = None  # overrides of controller.toml
    AGENT = None       # overrides of agent.toml
    AGENT_ARRAYS = None

    @classmethod
    def setUpClass(cls):
        cls.cluster = Cluster(cls.AGENTS, cls.CONTROLLER, cls.AGENT, cls.AGENT_ARRAYS)
        cls.c = cls.cluster.__enter__()
        try:
            cls.prepare()
        except BaseException:
            cls.cluster.__exit__(1)
            raise

    @classmethod
    def prepare(cls):
        """What all tests of the class share."""

    @classmethod
    def tearDownClass(cls):
        cls.cluster.__exit__(None)

    def run(self, result=None):
        errors_before = len(result.errors) + len(result.failures) if result else 0
        started = time.monotonic()
        super().run(result)
        print(f"{self.id().split('.', 1)[1]}: {time.monotonic() - started:.1f} s", file=sys.stderr)
        if result and len(result.errors) + len(result.failures) > errors_before:
            self.cluster._print_logs()  # the logs of the moment it failed


def main():
    unittest.main(verbosity=2, module="__main__")
