"""Mistakes are told plainly (what, where, remedy), with exit code 2; nothing of them reaches standard output."""
import json
import shutil
import struct
import subprocess
import unittest

import tiny_model
from program import PROGRAM, ProgramTest


class Errors(ProgramTest):
    def refuse_generate(self, expected, *arguments, **options):
        return self.refuse(expected, "generate", "--model", self.model, "--prompt", "abc", *arguments, **options)

    def changed_model(self, name, **fields):
        folder = self.root / name
        shutil.copytree(self.model, folder)
        config = json.loads((folder / "config.json").read_text()) | fields
        (folder / "config.json").write_text(json.dumps(config))
        return folder

    def test_number_is_not_a_document(self):
        self.refuse_generate(["8192", "a number is not a file", "--decoder-tokens"], "--document", "8192")
        outcome = self.refuse("a number is not a file", "encode", "--model", self.model, "8192")
        self.assertNotIn("--document", outcome.err)

    def test_missing_document(self):
        self.refuse_generate(["nowhere.txt", "no such file"], "--document", "nowhere.txt")

    def test_documents_that_are_no_text(self):
        for name, content, hint in (("a.pdf", b"%PDF-1.7", "pdftotext"), ("a.html", b"<html>", "HTML"),
                                    ("a.bin", b"ab\0cd", "binary"), ("a.txt", b"ok\n\xff\xfez", "line 2"),
                                    ("b.txt", "text".encode("utf-32"), "UTF-32"), ("a.rtf", b"{\\rtf1 text}", "RTF"),
                                    ("a.ps", b"%!PS-Adobe-3.0\n(text) show", "PostScript")):
            self.refuse_generate([name, hint], "--adapter", self.adapter, "--document", self.write(name, content))

    def test_documents_need_an_adapter(self):
        document = self.write("text.txt", "text")
        self.refuse_generate(["no adapter", "cepe adapter init"], "--document", document)
        self.refuse_generate("no adapter", "--adapter", "none", "--document", document)
        for option in ("--endless", "--attribution"):
            self.refuse_generate([option, "no adapter"], "--adapter", "none", option)

    def test_missing_model_is_named_with_the_command_that_gets_it(self):
        self.refuse("scripts/fetch-models", "generate", "--prompt", "abc")
        self.refuse(["hf download some/model", "gated"], "info", "some/model")
        self.refuse("no such model", "info", "./nowhere")

    def test_missing_tokenizer(self):
        self.refuse("nowhere: no such file", "info", self.model, "--tokenizer", "nowhere")
        bare = self.changed_model("without-tokenizer")
        (bare / "tokenizer.json").unlink()
        document = self.write("text.txt", "text")
        for command in (("generate", "--prompt", "abc"), ("tokenize", "abc"), ("eval", "lm", "--text", document),
                        ("data", "build", "--text", document, "--output", self.root / "corpus")):
            self.refuse(["without-tokenizer: no tokenizer", "--tokenizer names"], *command, "--model", bare)

    def test_missing_adapter(self):
        self.refuse_generate(["nowhere", "cepe adapter init"], "--adapter", "nowhere")

    def test_adapter_of_another_decoder_is_refused_unless_asked_for(self):
        other = tiny_model.make(self.root / "other", seed=2)
        arguments = ("generate", "--model", other, "--adapter", self.adapter, "--prompt", "abc")
        self.refuse(["made for model", "--allow-mismatch"], *arguments)
        self.succeed(*arguments, "--allow-mismatch", "--max-tokens", "2")
        outcome = self.refuse("made for model", "adapter", "quantise", self.adapter, "--model", other, "--output",
                              self.root / "eight-bits")
        self.assertNotIn("--allow-mismatch", outcome.err)

    def test_an_adapter_in_the_place_of_a_model_is_told_from_one(self):
        self.refuse(["adapter: this is an adapter, not a model", "--adapter"], "info", self.adapter)

    def test_links_to_nothing_are_named_and_not_taken_for_absent_files(self):
        for name in ("model.safetensors", "config.json", "tokenizer.json", "tokenizer_config.json"):
            folder = self.changed_model("links-" + name)
            (folder / name).unlink()
            (folder / name).symlink_to("../../blobs/1234")
            self.refuse([f"{name}: a symbolic link to ../../blobs/1234"], "generate", "--model", folder, "--prompt", "a")
        self.refuse("a symbolic link to", "convert", self.model, "--output", folder / "tokenizer_config.json")

    def test_models_of_hugging_face_are_looked_for_where_its_tools_put_them(self):
        snapshot = self.root / "xdg/huggingface/hub/models--me--tiny/snapshots/1234"
        shutil.copytree(self.model, snapshot)
        environment = self.environment() | {"XDG_CACHE_HOME": str(self.root / "xdg")}
        for name in ("HF_HUB_CACHE", "HF_HOME"):
            environment.pop(name, None)
        outcome = subprocess.run([PROGRAM, "info", "me/tiny"], env=environment, capture_output=True, text=True)
        self.assertEqual(outcome.returncode, 0, outcome.stderr)
        self.assertIn(str(snapshot), outcome.stdout)

    def test_lora_adapter_is_refused_by_name(self):
        self.write("lora/adapter_config.json", "{}")
        self.refuse_generate("LoRA", "--adapter", self.root / "lora")

    def test_unknown_rope_type_is_refused_by_name(self):
        folder = self.changed_model("rope", rope_scaling={"rope_type": "longrope", "factor": 2.0})
        self.refuse(["longrope", "config.json"], "info", folder)

    def test_unknown_family_is_refused_by_name(self):
        self.refuse(["rwkv", "llama"], "info", self.changed_model("family", model_type="rwkv"))

    def test_broken_files_are_named(self):
        folder = self.changed_model("broken")
        (folder / "model.safetensors").write_bytes(b"\xff" * 100)
        self.refuse("model.safetensors", "info", folder)
        (folder / "config.json").write_text("{")
        self.refuse("config.json", "info", folder)

    def test_too_large_a_model_is_refused_before_loading_with_figures(self):
        # A sparse file: 8 TiB of weights that take no disk.
        folder = self.changed_model("huge", vocab_size=2**21, hidden_size=2**20)
        count = 2**21 * 2**20
        header = json.dumps({"model.embed_tokens.weight": {"dtype": "F32", "shape": [2**21, 2**20],
                                                           "data_offsets": [0, 4 * count]}}).encode()
        with open(folder / "model.safetensors", "wb") as file:
            file.write(struct.pack("<Q", len(header)) + header)
            try:
                file.truncate(8 + len(header) + 4 * count)
            except OSError:
                self.skipTest("this file system has no files of 8 TiB")
        self.refuse(["TiB", "available"], "generate", "--model", folder, "--prompt", "abc", code=1)

    def test_a_gpu_that_is_not_there_is_said_plainly(self):
        outcome = self.run_program("generate", "--model", self.model, "--prompt", "abc", "--device", "cuda")
        if outcome.code == 0:
            self.skipTest("this machine has a GPU")
        self.assertEqual(outcome.code, 2)
        self.assertIn("--device cpu", outcome.err)

    def test_a_word_that_is_no_device_is_refused_by_commands_that_open_none(self):
        for command in (("store", "ls"), ("info", self.model), ("tokenize", "--model", self.model, "abc"),
                        ("completion", "bash"), ("eval", "compare", "a", "b")):
            self.refuse(["--device foo", "use --device cpu"], *command, "--device", "foo")

    def test_a_store_whose_cache_is_a_file_is_not_an_empty_one(self):
        file = self.write("cache.txt", "no folder")
        for what in ("ls", "verify", "gc", "clear"):
            self.refuse([str(file), "expected a cache folder"], "store", what, "--cache-dir", file)
        self.assertEqual(file.read_text(), "no folder")

    def test_options_out_of_range_are_named(self):
        for option, value in (("--temperature", "-1"), ("--top-p", "0"), ("--min-p", "2"), ("--max-tokens", "0"),
                              ("--max-tokens", "many"), ("--repetition-penalty", "0"), ("--top-k", "-1"), ("--logit-bias", "5"), ("--logit-bias", "x=1"), ("--logit-bias", "5=nan"), ("--logit-bias", "5=3e38"),
                              ("--logit-bias", "99999=1"), ("--samples", "0"), ("--samples", "2"),
                              ("--decoder-tokens", "1000000"), ("--threads", "-1"), ("--dtype", "int3"),
                              ("--device", "tpu")):
            outcome = self.refuse_generate([], option, value)
            self.assertIn(option, outcome.err)

    def test_an_empty_name_is_refused_by_its_option_and_is_not_the_default(self):
        for option, *command in (("MODEL", "info", ""), ("--model", "info", "--model", ""),
                                 ("--file", "tokenize", "--model", self.model, "--file", ""),
                                 ("--text", "eval", "lm", "--model", self.model, "--text", ""),
                                 ("--document", "generate", "--model", self.model, "--document", ""),
                                 ("--adapter", "chat", "--model", self.model, "--adapter", ""),
                                 ("--cache-dir", "store", "ls", "--cache-dir", ""), ("recipe", "train", ""),
                                 ("FILES", "encode", "--model", self.model, "")):
            self.refuse([option + ": ", "'' is no name"], *command, stdin="")
        self.assertEqual(self.succeed("tokenize", "--model", self.model, "--count", "").out, "0\n")

    def test_wrong_size_of_the_cache_is_named(self):
        self.refuse_generate("--cache-size 'lots'", "--adapter", self.adapter, "--cache-size", "lots")

    def test_options_without_effect_are_told(self):
        greedy = self.generate("--prompt", "abc", "--top-p", "0.9", "--seed", "3", "--device-cache", "1M")
        self.assertIn("--top-p, --seed: without effect at --temperature 0", greedy.err)
        self.assertIn("--device-cache 1M: without effect on a CPU", greedy.err)
        overlap = ("--adapter", self.adapter, "--chunk-overlap", "8", "--prompt", "abc")
        self.assertIn("--chunk-overlap 8: without effect", self.generate(*overlap).err)
        document = self.write("overlapping.txt", "some text")
        self.assertNotIn("--chunk-overlap", self.generate(*overlap, "--document", document).err)
        for option in (("--dtype", "float32"), ("--kept-memory", "0")):
            kept = self.generate("--prompt", "abc", "--kept-disk", "1G", *option)
            self.assertIn(f"--kept-disk 1G: without effect with {option[0]}", kept.err)
        kept = self.generate("--prompt", "abc", "--kept-memory", "1G", "--cross-attention", "kept")
        self.assertIn("--kept-memory: without effect with --cross-attention kept", kept.err)
        drawn = self.generate("--prompt", "abc", "--top-p", "0.9", "--seed", "3", "--temperature", "1")
        self.assertNotIn("without effect", drawn.err)
        self.refuse_generate("--logprobs", "--top-logprobs", "3")
        self.refuse(["--sequences"], "bench", "--model", self.model, "--own-contexts")
        for option in (("--sequences", "2"), ("--batch-invariant",)):
            self.refuse(option[0], "bench", "--model", self.model, "--document", self.model, *option)
        for option in (("--batch-invariant",), ("--kept-type", "int8"), ("--tokenizer", self.model)):
            self.refuse(option[0], "bench", "--shape", "tiny", *option)
        self.refuse("--sequences", "bench", "--shape", "tiny", "--parts", "batches")
        for option in ("--count", "--special"):
            self.refuse(option, "tokenize", "--model", self.model, "--decode", option, "1 2")
        copied = self.succeed("convert", self.model, "--output", self.root / "copied", "--dtype", "bfloat16")
        self.assertIn("--dtype bfloat16: without effect", copied.err)

    def test_a_type_of_weights_that_a_command_does_not_make_is_refused(self):
        for dtype in ("fp8", "int8", "int4"):
            self.refuse([f"--dtype {dtype}", "--int8"], "adapter", "init", "--model", self.model, "--dtype", dtype,
                        "--output", self.root / "rounded")
        self.refuse(["--dtype int4", "8 bits"], "adapter", "quantise", self.adapter, "--model", self.model, "--dtype",
                    "int4", "--output", self.root / "rounded")
        self.assertFalse((self.root / "rounded").exists())
        self.refuse(["--dtype bfloat16", "float32"], "bench", "--shape", "tiny", "--device", "cpu", "--dtype", "bfloat16")
        text = self.write("calibration.txt", "text")
        self.refuse("--calibration", "info", self.model, "--dtype", "fp8", "--calibration", text)

    def test_contradictions_are_refused(self):
        self.refuse_generate(["--no-cache", "--remote-store"], "--no-cache", "--remote-store", "redis://localhost")
        self.refuse_generate("--prompt-file", "--prompt-file", self.write("p.txt", "x"))
        self.refuse_generate("--chat", "--system", "x")
        self.refuse(["MODEL", "--model"], "info", self.model, "--model", self.model)
        self.refuse("once", "generate", "--model", self.model, "--document", "-", "--document", "-", stdin="x")

    def test_what_is_wrong_for_the_model_is_told_before_a_message_is_read(self):
        for option, value in (("--logit-bias", "abc"), ("--logit-bias", "99999=1"), ("--decoder-tokens", "1000000"),
                              ("--chunk-overlap", "256"), ("--stop", "")):
            self.refuse(option, "chat", "--model", self.model, "--adapter", self.adapter, option, value, stdin="")
        self.refuse_generate("--stop", "--stop", "")
        refused = self.refuse_generate("no token 99999", "--adapter", self.adapter, "--document",
                                       self.write("first.txt", "some text"), "--logit-bias", "99999=1", "--verbose")
        self.assertNotIn("ncod", refused.err, "before documents are encoded")

    def test_empty_prompt_is_refused(self):
        self.refuse("empty", "generate", "--model", self.model, "--prompt", "")
        self.refuse("empty", "generate", "--model", self.model, stdin="")
        self.refuse("nothing to answer", "generate", "--model", self.model, "--chat", "--prompt", "")
        self.refuse("nothing to answer", "generate", "--model", self.model, "--chat", stdin="\n")

    def test_a_text_beyond_the_window_without_an_adapter_is_told_with_its_length(self):
        words = ["5000 tokens", "reads 3968", "--adapter"]
        long = self.refuse(words, "generate", "--model", self.model, "--adapter", "none", "--prompt", "word " * 1000)
        self.assertNotIn("document", long.err)
        self.assertNotIn("go to the encoder", long.err)
        self.refuse("has no adapter for the rest", "chat", "--model", self.model, "--adapter", "none",
                    stdin="word " * 1000)

    def test_unknown_options_and_commands_lead_to_help(self):
        self.refuse("cepe generate --help", "generate", "--no-such-option")
        self.refuse("cepe --help", "no-such-command")
        self.refuse("cepe --help")
        self.refuse("cepe store --help", "store")

    def test_chat_without_a_template_is_refused(self):
        folder = self.changed_model("plain")
        (folder / "tokenizer_config.json").write_text("{}")
        self.refuse("chat template", "generate", "--model", folder, "--chat", "--prompt", "x")

    def test_folder_that_is_not_empty_is_not_overwritten(self):
        before = (self.adapter / "config.json").read_bytes()
        self.refuse(["not empty", "--force"], "adapter", "init", "--model", self.model, "--encoder-layers", "1",
                    "--output", self.adapter)
        self.refuse("choose another", "convert", self.model, "--output", self.model)
        self.assertEqual((self.adapter / "config.json").read_bytes(), before)

    def test_a_command_that_is_refused_leaves_no_folder(self):
        output = self.root / "refused"
        for words, *arguments in (
                ("4000 encoder layers", "adapter", "init", "--model", self.model, "--encoder-layers", "4000"),
                ("no adapter here", "adapter", "quantise", "nowhere", "--model", self.model),
                ("no adapter here", "convert", self.model, "--adapter", "nowhere")):
            self.refuse(words, *arguments, "--output", output)
            self.assertFalse(output.exists())


if __name__ == "__main__":
    unittest.main()
