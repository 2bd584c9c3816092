"""The Python scripts of bench/ and recipes/ with wrong arguments: each says plainly what is missing."""
import json
import os
import subprocess
import sys
import tempfile
import unittest
from pathlib import Path

REPOSITORY = Path(__file__).resolve().parents[2]


class BenchScripts(unittest.TestCase):
    def setUp(self):
        folder = tempfile.TemporaryDirectory()
        self.addCleanup(folder.cleanup)
        self.root = Path(folder.name)

    def write(self, name, content):
        path = self.root / name
        path.write_text(content)
        return path

    def run_script(self, script, *arguments, **environment):
        return subprocess.run([sys.executable, "-B", REPOSITORY / script, *map(str, arguments)], capture_output=True,
                              text=True, stdin=subprocess.DEVNULL, timeout=60, check=False,
                              env=os.environ | environment)

    def refuse(self, expected, script, *arguments, **environment):
        outcome = self.run_script(script, *arguments, **environment)
        self.assertNotEqual(outcome.returncode, 0)
        self.assertIn(expected, outcome.stderr)
        self.assertNotIn("Traceback", outcome.stderr)
        self.assertEqual(outcome.stdout, "")

    def test_times_of_kernels(self):
        script = "bench/kernel_times.py"
        self.refuse("nowhere: No such file", script, self.root / "nowhere")
        self.refuse("times.txt:2: expected", script, self.write("times.txt", "1 2 3 a kernel\nanything\n"))
        lines = "".join(f"{10 * i} {10 * i + 5} 1 one\n" for i in range(30))
        outcome = self.run_script(script, self.write("good.txt", lines))
        self.assertIn("one:1", outcome.stdout, outcome.stderr)

    def test_the_plot_of_steps(self):
        script = "bench/plot_steps.py"
        self.refuse("nowhere: No such file", script, self.root / "nowhere")
        self.refuse("bench/plot_steps.py steps.json", script, "--help")
        self.refuse("text.json: Expecting value", script, self.write("text.json", "text"))
        self.refuse("no output of cepe bench --shape", script, self.write("other.json", "{}"))
        row = {"what": "a token, absorbed", "context_tokens": 256, "seconds": 2.0, "bound_seconds": 1.0}
        one = {"shape": "tiny", "rows": [row, row]}
        self.refuse("fewer than two lengths", script, self.write("one.json", json.dumps(one)))
        two = {"shape": "tiny", "rows": [row, row | {"context_tokens": 512}]}
        outcome = self.run_script(script, self.write("two.json", json.dumps(two)))
        self.assertTrue(outcome.stdout.startswith("<svg"), outcome.stderr)

    def test_questions(self):
        def refuse(expected, questions, *arguments):
            self.refuse(expected, "bench/questions.py", "--program", sys.executable, "--questions", questions, *arguments)

        refuse("nowhere: No such file", self.root / "nowhere")
        refuse("text.jsonl:1: expected", self.write("text.jsonl", "text\n"))
        refuse("fields.jsonl:2: expected", self.write("fields.jsonl", "\n{\"question\": \"Who?\"}\n"))
        empty = self.write("empty.jsonl", "")
        refuse("no questions", empty)
        refuse("--count", empty, "--count", "0")
        refuse("--no-baselines", empty, "--no-baselines")
        refuse("no-adapter: there is no such folder", empty, "--adapter", "no-adapter")
        self.refuse("scripts/build", "bench/questions.py", "--program", "nowhere", "--questions", empty)

    def test_the_comparison_with_llama_cpp_looks_for_its_files_before_it_compiles(self):
        file = self.write("file", "")

        def refuse(expected, *arguments):
            self.refuse(expected, "bench/llama_cpp.py", "--model", file, "--document", file, "--program", file,
                        "--cache-dir", self.root / "cache", *arguments, PIP_NO_INDEX="1", PIP_FIND_LINKS="")

        refuse("no-adapter: there is no such folder", "--adapter", "no-adapter")
        refuse("no-python: there is no such file", "--adapter", self.root, "--llama-python", "no-python")
        refuse("invalid counts value: 'x'", "--adapter", self.root, "--tokens", "x")
        self.assertFalse((self.root / "cache").exists())

    def test_text_of_debian_packages_is_not_fetched_where_a_program_or_a_held_out_file_is_missing(self):
        tools = self.root / "tools"
        tools.mkdir()
        arguments = ("recipes/smollm2/debian_text.py", "--output", self.root / "texts")
        self.refuse("no program apt-get", *arguments, PATH=str(tools))
        for name in ("apt-get", "dpkg-deb", "zstd"):
            (tools / name).write_text("#!/bin/sh\nexit 1\n")
            (tools / name).chmod(0o755)
        self.refuse("cannot read none.zst", *arguments, "--held-out", "none.zst", PATH=str(tools))
        self.assertFalse((self.root / "texts").exists())


if __name__ == "__main__":
    unittest.main()
