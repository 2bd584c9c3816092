"""The examples at the end of every command's --help, run as they are printed, with small inputs in the place of theirs."""
import json
import os
import re
import shlex
import shutil
import subprocess
import unittest
from pathlib import Path

import tiny_model
from program import PROGRAM, ProgramTest

REPOSITORY = Path(__file__).resolve().parents[2]
# What no small input stands in for: the default model (its layers are named), and models of the Hugging Face cache.
MISSING_MODEL = ("get it with: scripts/fetch-models", "get it with: hf download")


def zstd_frame(content):
    """One raw block of at most 128 KiB, as RFC 8878 has it."""
    return (b"\x28\xb5\x2f\xfd\xa0" + len(content).to_bytes(4, "little")
            + (len(content) << 3 | 1).to_bytes(3, "little") + content)


class Examples(ProgramTest):
    @classmethod
    def setUpClass(cls):
        super().setUpClass()
        cls.home = cls.root / "home"
        (cls.home / "notes").mkdir(parents=True)
        text = (REPOSITORY / "books/tristram-shandy.txt").read_text()[:100000]
        line = json.dumps({"id": "shandy", "text": text})
        for name in ("book.txt", "manual.txt", "notes/first.txt"):
            (cls.home / name).write_text(text)
        (cls.home / "books.jsonl").write_text(line)
        for name in ("books.jsonl.zst", "books_train-0.jsonl.zst", "books_train-1.jsonl.zst"):
            (cls.home / name).write_bytes(zstd_frame(line.encode()))
        for name in ("own.jsonl", "other-1.jsonl", "other-2.jsonl"):
            (cls.home / name).write_text(json.dumps({"context_tokens": 8, "by_document": [
                {"id": "shandy", "nll": 3.0, "tokens": 16}]}) + "\n")
        shutil.copytree(REPOSITORY / "recipes", cls.home / "recipes")
        config = cls.home / "recipes/tiny/config.json"  # with the vocabulary of single bytes, and fewer steps
        config.write_text(json.dumps(json.loads(config.read_text()) | {"vocab_size": tiny_model.VOCABULARY}))
        recipe = cls.home / "recipes/tiny/decoder.yaml"
        recipe.write_text(recipe.read_text().replace("steps: 150", "steps: 2"))
        for name in ("books", "my-corpus"):
            made = cls.run_program("data", "build", "--model", cls.model, "--text", cls.home / "book.txt", "--output",
                                   cls.home / name)
            assert made.code == 0, made.err
        for arguments in (("convert", cls.model, "--adapter", cls.adapter, "--output", cls.home / "CEPE-LLaMA-2-7B"),
                          ("data", "export", cls.home / "books", "--mds", cls.home / "redpajama/train")):
            made = cls.run_program(*arguments)
            assert made.code == 0, made.err

    def examples(self, *above):
        """[(command or group of commands, its example)] of a group and everything below it."""
        text = self.succeed(*above, "--help").out
        below = re.findall(r"^  ([a-z]+) {3,}", text.partition("Subcommands:")[2], re.MULTILINE)
        own = (" ".join(above), text.split("Example:\n  ")[1].strip())
        return [own] + [example for name in below for example in self.examples(*above, name)]

    def run_example(self, example):
        """[exit code, standard error] in a folder where its inputs stand; a redirection of its output is left out."""
        words = shlex.split(example.partition(" > ")[0])
        process = subprocess.run([PROGRAM, *words[1:]], cwd=self.home, stdin=subprocess.DEVNULL, capture_output=True,
                                 env=self.environment() | {"HF_HUB_CACHE": str(self.home)}, timeout=120)
        return process.returncode, process.stderr.decode(errors="replace")

    def test_each_runs_as_printed(self):
        worked = set()
        for command, example in self.examples():
            with self.subTest(example=example):
                self.assertTrue(example.startswith(f"cepe {command}"), "an example is of its own command")
                code, err = self.run_example(example)
                if code == 0:
                    worked.add(command)
                else:
                    self.assertTrue(any(missing in err for missing in MISSING_MODEL), err)
        # Those that need no model of others, or name their own.
        self.assertLessEqual({"convert", "store ls", "store verify", "store gc", "store clear", "data info",
                              "data verify", "data export", "train", "eval compare", "completion"}, worked)


if __name__ == "__main__":
    unittest.main()
