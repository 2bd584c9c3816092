"""Runs the built program as a user would: own cache folder, nothing on standard input unless given."""
import os
import subprocess
import tempfile
import unittest
from pathlib import Path

import tiny_model

PROGRAM = os.environ["CEPE_PROGRAM"]


class Outcome:
    def __init__(self, code, out, err):
        self.code, self.out, self.err = code, out, err


class ProgramTest(unittest.TestCase):
    """One tiny model and one untrained adapter with random cross-attention for all tests of a class."""

    @classmethod
    def setUpClass(cls):
        cls.folder = tempfile.TemporaryDirectory()
        cls.addClassCleanup(cls.folder.cleanup)
        cls.root = Path(cls.folder.name)
        cls.model = tiny_model.make(cls.root / "model")
        cls.adapter = cls.root / "adapter"
        made = cls.run_program(
            "adapter", "init", "--model", cls.model, "--encoder-layers", "1", "--cross-attention-layers", "1-2",
            "--start", "none", "--output", cls.adapter)
        assert made.code == 0, made.err

    @classmethod
    def environment(cls):
        return os.environ | {"CEPE_CACHE_DIR": str(cls.root / "cache"), "OMP_NUM_THREADS": "1"}

    @classmethod
    def start(cls, *arguments, stdin=subprocess.DEVNULL):
        return subprocess.Popen([PROGRAM, *map(str, arguments)], stdin=stdin, stdout=subprocess.PIPE,
                                stderr=subprocess.PIPE, env=cls.environment())

    @classmethod
    def run_program(cls, *arguments, stdin=None, timeout=120):
        process = cls.start(*arguments, stdin=subprocess.DEVNULL if stdin is None else subprocess.PIPE)
        out, err = process.communicate(None if stdin is None else stdin.encode(), timeout=timeout)
        return Outcome(process.returncode, out.decode(errors="replace"), err.decode(errors="replace"))

    def succeed(self, *arguments, **options):
        outcome = self.run_program(*arguments, **options)
        self.assertEqual(outcome.code, 0, outcome.err)
        return outcome

    def refuse(self, expected, *arguments, code=2, **options):
        """Exit code 2, nothing on standard output, every expected word in one plain error."""
        outcome = self.run_program(*arguments, **options)
        self.assertEqual(outcome.code, code, outcome.err)
        self.assertEqual(outcome.out, "")
        self.assertIn("error: ", outcome.err)
        for word in [expected] if isinstance(expected, str) else expected:
            self.assertIn(word, outcome.err)
        for word in ("terminate called", "what():", "Exception raised from", "defect of the program"):
            self.assertNotIn(word, outcome.err)
        return outcome

    def write(self, name, content):
        path = self.root / name
        path.parent.mkdir(parents=True, exist_ok=True)
        path.write_bytes(content if isinstance(content, bytes) else content.encode())
        return path

    def generate(self, *arguments, **options):
        return self.succeed("generate", "--model", self.model, "--max-tokens", "12", *arguments, **options)
