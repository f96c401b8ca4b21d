"""Run by `python3 -m unittest`: the stage in plain Python, with a host in memory."""

import sys
import unittest

# Comes with `sluicebox`, which puts it there and keeps it at its own version.
sys.path.append(".sluicebox/sdk/python")

from sluicebox.testing import Harness
from stage import greet


class Greeting(unittest.TestCase):
    def test_each_key_has_a_count_of_its_own(self):
        harness = Harness(greet)
        harness.send("ada", "first")
        handled = harness.send("ada", "second")
        self.assertEqual(handled.outputs[0].json(), {"greeting": "hello", "count": 2})
