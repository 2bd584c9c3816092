"""cepe train: every stage on a small real text, runs that are killed or interrupted at any moment, and refusals."""
import hashlib
import json
import os
import random
import re
import shutil
import signal
import subprocess
import time
import unittest
from concurrent.futures import ThreadPoolExecutor
from pathlib import Path

import tiny_model
from program import PROGRAM, ProgramTest

REPOSITORY = Path(__file__).resolve().parents[2]
RECIPE = """
stage: cepe
trainable: [decoder, encoder, cross_attention]
adapter: {encoder: random, encoder_layers: 1, encoder_width: 16, encoder_heads: 2, encoder_feed_forward: 16,
          start: none, chunk_size: 8}
phases:
  - {steps: 60, batch: 4, context_tokens: 16, decoder_tokens: 16, windows: 2, short_context: 0.3}
  - {steps: 60, batch: 4, micro_batch: 2, decoder_tokens: 16, windows: 3, others: 0.5, other_tokens: 16}
optimiser: {kind: muon, rate: 5e-3}
checkpoint: {steps: 1, keep: 2}
log_steps: 10
"""


class Training(ProgramTest):
    @classmethod
    def setUpClass(cls):
        super().setUpClass()
        text = cls.root / "shandy.txt"
        text.write_bytes((REPOSITORY / "books/tristram-shandy.txt").read_bytes()[:200000])
        cls.text, cls.corpus = text, cls.root / "corpus"
        made = cls.run_program("data", "build", "--model", cls.model, "--text", text, "--output", cls.corpus)
        assert made.code == 0, made.err
        cls.recipe = cls.root / "recipe.yaml"
        config = {"model_type": "llama", "architectures": ["LlamaForCausalLM"],
                  "vocab_size": tiny_model.VOCABULARY, "hidden_size": 16, "intermediate_size": 24,
                  "num_hidden_layers": 2, "num_attention_heads": 2, "num_key_value_heads": 1, "hidden_act": "silu",
                  "rms_norm_eps": 1e-5, "rope_theta": 10000.0, "max_position_embeddings": 512,
                  "tie_word_embeddings": True, "torch_dtype": "float32"}
        (cls.root / "tiny").mkdir()
        (cls.root / "tiny/config.json").write_text(json.dumps(config))
        cls.recipe.write_text(RECIPE + f"decoder: {{config: {cls.root}/tiny/config.json}}\n")

    def arguments(self, output, *settings):
        return ("train", self.recipe, f"data.corpus={self.corpus}", f"output={self.root / output}", *settings)

    def steps_in(self, output):
        return sorted(int(name.split("-")[1]) for name in os.listdir(self.root / output / "checkpoints")
                      if re.fullmatch(r"step-\d{8}", name))

    def check_whole(self, output, step):
        folder = self.root / output / f"checkpoints/step-{step:08}"
        manifest = json.loads((folder / "manifest.json").read_text())
        for name, entry in manifest["files"].items():
            content = (folder / name).read_bytes()
            self.assertEqual((len(content), hashlib.sha256(content).hexdigest()), (entry["bytes"], entry["sha256"]))

    def assert_same_run(self, output, wanted):
        last = self.steps_in(wanted)[-1]
        self.assertEqual(self.steps_in(output)[-1], last)
        for name in (f"checkpoints/step-{last:08}/tensors.safetensors", "result/adapter.safetensors",
                     "result/decoder/model.safetensors"):
            self.assertEqual((self.root / output / name).read_bytes(), (self.root / wanted / name).read_bytes(), name)

    def metrics(self, output):
        return [json.loads(line) for line in (self.root / output / "metrics.jsonl").read_text().splitlines()]


class Killed(Training):
    KILLS = int(os.environ.get("CEPE_TRAIN_KILLS", "50"))

    def acknowledged(self, log):
        """The last step of which the program has said that it is safe."""
        steps = re.findall(r"checkpoint of step (\d+)\n", log.read_text(errors="replace"))
        return int(steps[-1]) if steps else 0

    def launch(self, output, log):
        with open(log, "wb") as stream:
            return subprocess.Popen([PROGRAM, *map(str, self.arguments(output)), "--verbose"], stderr=stream,
                                    stdout=subprocess.DEVNULL, env=self.environment())

    def wait_for_a_step(self, process, log):
        while process.poll() is None and self.acknowledged(log) == 0:
            time.sleep(0.005)

    def run_undisturbed(self):
        """How many seconds it takes to its first acknowledged step, and from there."""
        log, begin = self.root / "log", time.monotonic()
        process = self.launch("undisturbed", log)
        self.wait_for_a_step(process, log)
        first = time.monotonic()
        self.assertEqual(process.wait(), 0, log.read_text(errors="replace"))
        return first - begin, time.monotonic() - first

    def run_until_killed(self, output, log, chance):
        """The exit code, or None where the kill came first: while it starts, or a while after it acknowledged a step."""
        process = self.launch(output, log)
        seconds = chance.uniform(0, self.starting)
        if chance.random() < 0.8:
            self.wait_for_a_step(process, log)
            seconds = chance.uniform(0, self.stepping / 10)
        try:
            return process.wait(seconds)
        except subprocess.TimeoutExpired:
            process.kill()
            process.wait()
            return None

    def kill_again_and_again(self, lane):
        """Starts a run as often as it takes, and another where it came to its end, until enough kills hit steps."""
        chance, hit, runs, before = random.Random(lane), 0, 0, 0
        output, log = f"killed-{lane}-{runs}", self.root / f"log-{lane}"
        while hit < self.KILLS // 2:
            code = self.run_until_killed(output, log, chance)
            text = log.read_text(errors="replace")
            self.assertIn(code, (None, 0), text)
            going_on = re.search(r"going on after step (\d+) of", text)
            if going_on:
                self.assertGreaterEqual(int(going_on[1]), before, "an acknowledged checkpoint was lost")
            elif before > 0:
                self.assertIsNone(code, text)  # killed before it had looked
            said = self.acknowledged(log)
            before = max(before, said)
            steps = self.steps_in(output) if (self.root / output / "checkpoints").exists() else []
            self.assertGreaterEqual(max(steps, default=0), before)
            if steps:
                self.check_whole(output, steps[-1])
            hit += code is None and said > 0
            if code == 0:
                self.assert_same_run(output, "undisturbed")
                runs, before = runs + 1, 0
                output = f"killed-{lane}-{runs}"
        self.succeed(*self.arguments(output))
        self.assert_same_run(output, "undisturbed")

    def test_after_fifty_kills_nothing_acknowledged_is_lost_and_the_result_is_the_same(self):
        self.starting, self.stepping = self.run_undisturbed()
        with ThreadPoolExecutor(2) as lanes:
            list(lanes.map(self.kill_again_and_again, (1, 2)))


class Stopped(Training):
    def test_ctrl_c_saves_and_the_same_command_goes_on_to_the_same_result(self):
        whole = ("checkpoint.steps=0", "phases.1.steps=240")  # so many that some are left whenever the signal comes
        self.succeed(*self.arguments("whole", *whole))
        arguments = self.arguments("interrupted", *whole)
        process = self.start(*arguments)
        self.assertEqual(self.interrupt_after_its_first_metrics(process, "interrupted"), b"")
        steps = self.steps_in("interrupted")
        self.assertEqual(len(steps), 1)
        outcome = self.succeed(*arguments)
        self.assertIn(f"going on after step {steps[0]} of 300", outcome.err)
        self.assertEqual(outcome.out, f"{self.root / 'interrupted/result'}\n")
        self.assert_same_run("interrupted", "whole")
        self.assertEqual([line["step"] for line in self.metrics("interrupted")][-1], 300)

    def interrupt_after_its_first_metrics(self, process, output):
        """What it wrote to standard output."""
        deadline = time.monotonic() + 60
        metrics = self.root / output / "metrics.jsonl"
        while not (metrics.exists() and metrics.read_text()) and time.monotonic() < deadline:
            time.sleep(0.01)
        process.send_signal(signal.SIGINT)
        out, err = process.communicate(timeout=60)
        self.assertEqual(process.returncode, 130, err)
        self.assertIn(f"stopped after step {self.steps_in(output)[-1]}; the same command goes on from there",
                      err.decode())
        return out

    def test_ctrl_c_does_not_wait_for_the_end_of_a_long_step(self):
        process = self.start(*self.arguments("long-step", "phases.0.steps=1", "phases.1.steps=1",
                                             "phases.1.batch=100000", "phases.1.micro_batch=2", "checkpoint.steps=0"))
        self.interrupt_after_its_first_metrics(process, "long-step")
        self.assertEqual(self.steps_in("long-step"), [1])

    def test_ctrl_c_does_not_wait_for_the_end_of_a_validation_which_is_made_up_for(self):
        arguments = self.arguments("validation", "phases.0.steps=1", "phases.1.steps=1", "checkpoint.steps=0")
        process = self.start(*arguments, "validation={steps: 1, samples: 1000000, context_tokens: [0, 16]}")
        self.interrupt_after_its_first_metrics(process, "validation")
        self.assertEqual(self.steps_in("validation"), [1])
        for _ in range(2):  # the second time the run is finished
            self.succeed(*arguments, "validation={steps: 1, samples: 2, context_tokens: [0, 16]}")
            self.assertEqual([line["step"] for line in self.metrics("validation") if "held_out_nll" in line], [1, 2])

    def test_stop_after_saves_and_says_how_to_go_on(self):
        outcome = self.succeed(*self.arguments("pieces"), "--stop-after", "1e-9")  # one step
        self.assertIn("the same command goes on from there", outcome.err)
        self.assertEqual(outcome.out, "")
        self.assertFalse((self.root / "pieces/result").exists())
        self.succeed(*self.arguments("pieces"))
        self.assertIn("0: never", self.succeed("train", "--help").out)
        self.succeed(*self.arguments("at-once"), "--stop-after", "0")
        self.assert_same_run("pieces", "at-once")


class Refused(Training):
    def test_an_unknown_key_is_named_with_the_nearest_known_one(self):
        recipe = self.write("wrong.yaml", self.recipe.read_text().replace("log_steps", "log_step"))
        self.refuse(["wrong.yaml, line", "'log_step' is no field", "did you mean 'log_steps'?"], "train", recipe,
                    f"data.corpus={self.corpus}", f"output={self.root / 'wrong'}")
        self.refuse("did you mean 'rate'?", *self.arguments("wrong", "optimiser.rat=1"))
        self.assertFalse((self.root / "wrong").exists())

    def test_an_empty_recipe_and_options_that_exclude_each_other_are_told(self):
        empty = self.write("empty.yaml", "\n# later\n")
        self.refuse(["empty.yaml: the recipe is empty", "docs/training.md"], "train", empty)
        self.refuse("this is a folder", "train", self.root)
        self.refuse("--export and --print-recipe", *self.arguments("none"), "--export", "--print-recipe")
        self.refuse("--export trains nothing", *self.arguments("none"), "--export", "--stop-after", "5")

    def test_another_recipe_in_the_same_folder_is_refused_by_what_differs(self):
        self.succeed(*self.arguments("same", "phases.0.steps=1", "phases.1.steps=1"))
        self.refuse(["same", "another recipe", "rate: 0.005", "rate: 0.5", "another output folder"],
                    *self.arguments("same", "phases.0.steps=1", "phases.1.steps=1", "optimiser.rate=0.5"))

    def test_a_folder_with_files_of_somebody_elses_is_refused(self):
        notes = "# my notes\n" + self.recipe.read_text()
        recipe = self.write("mine/recipe.yaml", notes)
        self.refuse(["mine/recipe.yaml", "another output folder"], *self.arguments("mine"))
        self.assertEqual(recipe.read_text(), notes)
        self.write("theirs/result/config.json", "{}")
        self.refuse(["theirs/result", "another output folder"], *self.arguments("theirs"))

    def test_a_corpus_of_another_tokenizer_than_the_decoders_is_refused_unless_asked_for(self):
        other = tiny_model.make(self.root / "other-tokenizer")
        file = other / "tokenizer.json"
        file.write_text(file.read_text().replace(tiny_model.SPECIAL[1], "<|begin|>"))
        arguments = self.arguments("other-run", "decoder.config=", f"decoder.model={other}", "phases.0.steps=1",
                                   "phases.1.steps=1")
        self.refuse([f"{self.corpus}/corpus.json: field 'tokenizer'", f"decoder.model {other}",
                     f"cepe data build --model {other}", "--allow-mismatch"], *arguments)
        self.assertFalse((self.root / "other-run").exists())
        self.succeed(*arguments, "--allow-mismatch")

    def test_options_that_would_do_nothing_are_refused(self):
        self.refuse(["--dtype int8", "decoder.dtype=bfloat16"], *self.arguments("none"), "--dtype", "int8")
        self.refuse("decoder.model: nowhere/a/b: no such model", *self.arguments("none"), "decoder.config=",
                    "decoder.model=nowhere/a/b")
        self.refuse("--stop-after nan", *self.arguments("none"), "--stop-after", "nan")
        self.refuse(["--device gpu", "use --device cpu"], *self.arguments("none"), "--device", "gpu")

    def test_a_micro_batch_beyond_all_memory_is_refused_with_figures_before_it_begins(self):
        outcome = self.refuse(["phases.0", "TiB of memory", "are available", "phases.0.micro_batch"],
                              *self.arguments("large", "phases.0.batch=1048576", "phases.0.decoder_tokens=512",
                                              "phases.0.windows=64"), code=1)
        self.assertNotIn("weights are trained", outcome.err)

    def test_a_name_with_a_nul_is_named(self):
        self.refuse(["data.corpus", "'a\\x00b' holds a NUL character"], *self.arguments("none"), 'data.corpus="a\\0b"')

    def test_what_is_missing_is_named(self):
        self.refuse(str(self.root / "no-corpus"), "train", self.recipe, f"data.corpus={self.root / 'no-corpus'}",
                    f"output={self.root / 'none'}")
        self.refuse("data.corpus: which folder?", "train", self.recipe, f"output={self.root / 'none'}")
        self.refuse("nowhere.yaml", "train", self.root / "nowhere.yaml")
        self.refuse(["adapter.encoder_width", "random encoder"], *self.arguments("none", "adapter.encoder_width=0"))
        self.assertFalse((self.root / "none").exists())


class Stages(ProgramTest):
    """recipes/tiny on a real text, one stage after the other, as docs/training.md shows it."""

    @classmethod
    def setUpClass(cls):
        super().setUpClass()
        cls.corpus, cls.runs = cls.root / "corpus", cls.root / "runs"
        shutil.copytree(REPOSITORY / "recipes", cls.root / "recipes")
        made = cls.run_program("data", "build", "--model", cls.model, "--text",
                               REPOSITORY / "books/tristram-shandy.txt", "--output", cls.corpus)
        assert made.code == 0, made.err
        file = cls.root / "recipes/tiny/config.json"  # with the vocabulary of single bytes
        file.write_text(json.dumps(json.loads(file.read_text()) | {"vocab_size": tiny_model.VOCABULARY}))

    def train(self, stage, *settings):
        """Runs a recipe of recipes/tiny; returns its metrics."""
        output = self.runs / stage
        recipe = self.root / f"recipes/tiny/{stage}.yaml"
        if "runs/tiny/decoder/result" in recipe.read_text():
            settings += (f"decoder.model={self.runs}/decoder/result",)
        result = self.succeed("train", recipe, f"data.corpus={self.corpus}", f"output={output}", "log_steps=5",
                              *settings).out.strip()
        self.assertEqual(result, str(output / "result"))
        lines = [json.loads(line) for line in (output / "metrics.jsonl").read_text().splitlines()]
        training = [line for line in lines if "loss" in line]
        for line in training:
            self.assertLessEqual({"step", "loss", "cross_entropy", "rate", "gradient_norm", "tokens_per_second",
                                  "tflops", "peak_memory_bytes"}, set(line))
        return training, [line["held_out_nll"] for line in lines if "held_out_nll" in line]

    def assert_falls(self, training, field, by):
        first = training[0][field]
        last = sum(line[field] for line in training[-2:]) / 2
        self.assertLess(last, first - by, f"{field}: {first:.3f} at first, {last:.3f} at last")

    def test_each_stage_learns_and_its_result_can_be_used(self):
        training, _ = self.train("decoder", f"decoder.config={self.root}/recipes/tiny/config.json")
        self.assert_falls(training, "loss", 1.5)
        decoder = self.runs / "decoder/result"
        tiny_model.write_tokenizer(decoder)
        self.assertIn("llama", self.succeed("info", decoder).out)

        training, _ = self.train("mlm")
        self.assert_falls(training, "loss", 0.5)

        training, held_out = self.train("warmup", "validation.steps=10")
        self.assertLess(held_out[-1]["0"], held_out[0]["0"] - 0.01)

        # Blocks that start as copies disturb at first what they help with later.
        training, held_out = self.train("cepe", "adapter.start=copy", "validation.steps=20")
        self.assert_falls(training, "loss", 0.1)
        self.assertEqual([set(by_length) for by_length in held_out], [{"0", "64", "192"}] * 4)
        self.assertLess(held_out[-1]["192"], held_out[0]["192"])
        self.assertEqual(held_out[0]["0"], held_out[-1]["0"], "without context it is the frozen decoder")

        training, _ = self.train("ceped", "adapter.start=copy")
        self.assert_falls(training, "divergence", 0.05)

        for stage in ("warmup", "cepe", "ceped"):
            adapter = self.runs / stage / "result"
            info = json.loads(self.succeed("info", decoder, "--adapter", adapter, "--json").out)
            self.assertTrue(info["adapter"]["trained"])
        scores = [json.loads(line) for line in self.succeed(
            "eval", "lm", "--model", decoder, "--adapter", self.runs / "cepe/result", "--text",
            REPOSITORY / "books/tristram-shandy.txt", "--decoder-tokens", "64", "--target-tokens", "32", "--samples",
            "4", "--context-tokens", "0,192", "--json").out.splitlines()]
        self.assertNotEqual(scores[0]["nll"], scores[1]["nll"])
        self.assertLess(max(score["perplexity"] for score in scores), 30)
        text = self.write("some.txt", "My uncle Toby was a gentleman. " * 20)
        self.succeed("generate", "--model", decoder, "--adapter", self.runs / "ceped/result", "--document", text,
                     "--prompt", "My uncle", "--max-tokens", "8")
        # An encoder from stage mlm, and an adapter that goes on from another.
        for name, setting in (("from-mlm", f"adapter.encoder={self.runs}/mlm/result"),
                              ("from-warmup", f"adapter={{from: {self.runs}/warmup/result, chunk_size: 32}}")):
            self.succeed("train", self.root / "recipes/tiny/cepe.yaml", f"data.corpus={self.corpus}",
                         f"decoder.model={decoder}", "phases.0.steps=2", "phases.1.steps=2", setting,
                         f"output={self.runs / name}")


class Documented(ProgramTest):
    """docs/training.md says of every field what the program says."""

    def printed_fields(self):
        """[(name, default, meaning)] of --print-recipe."""
        recipe = self.write("smallest.yaml", "output: out\ndata: {corpus: in, mixture: [{domain: a}]}\n"
                                             "phases: [{steps: 1}]\n")
        fields, above, note = [], [], ""
        for line in self.succeed("train", recipe, "--print-recipe").out.splitlines():
            text = line.lstrip(" -")
            depth = len(line) - len(text)
            if text.startswith("#"):
                note = text[2:]
                continue
            name, _, value = text.partition(":")
            above = [(at, group) for at, group in above if at < depth] + [(depth, name)]
            if value:
                fields.append((".".join(group for _, group in above), value.strip(), note))
            note = ""
        return fields

    def test_the_table_of_fields_is_the_programs_own(self):
        asked = {"output", "data.corpus", "data.mixture.domain", "phases.steps"}  # without a default
        rows = [f"| `{name}` | {'' if name in asked else f'`{default}`'} | {meaning} |".replace("||", "\\|\\|")
                for name, default, meaning in self.printed_fields()]
        table = re.findall(r"^\| `.*`? \|.*$", (REPOSITORY / "docs/training.md").read_text().partition("## Fields")[2]
                           .partition("\n## ")[0], re.MULTILINE)
        self.maxDiff = None
        self.assertEqual(table, rows)


if __name__ == "__main__":
    unittest.main()
