"""The other commands: info, tokenize, convert, adapter, bench, store, chat, completion, help."""
import contextlib
import fcntl
import json
import os
import re
import resource
import shutil
import signal
import socket
import subprocess
import threading
import time
import unittest
from pathlib import Path

import tiny_model
from program import PROGRAM, ProgramTest

REPOSITORY = Path(__file__).parents[2]


class Commands(ProgramTest):
    def json_of(self, *arguments, **options):
        return json.loads(self.succeed(*arguments, **options).out)

    def test_every_commands_help_ends_with_an_example_and_lists_the_common_options(self):
        top = self.succeed("--help").out
        names = re.findall(r"^  ([a-z]+) {3,}", top.split("Subcommands:")[1], re.MULTILINE)
        self.assertTrue({"generate", "chat", "info", "tokenize", "convert", "bench", "encode", "store", "adapter",
                         "completion", "train"} <= set(names), names)
        for name in names:
            text = self.succeed(name, "--help").out
            self.assertRegex(text, r"Example:\n  cepe [^\n]+\n$")
            for option in ("--device", "--dtype", "--threads", "--cache-dir", "--quiet", "--verbose", "--version"):
                self.assertIn(option, text, name)

    def test_version(self):
        self.assertRegex(self.succeed("--version").out, r"^cepe \d+\.\d+\.\d+\n$")
        self.assertEqual(self.succeed("generate", "--version").out, self.succeed("--version").out)

    def test_info_counts_every_weight_and_tells_memory_up_to_a_million_tokens(self):
        info = self.json_of("info", self.model, "--adapter", self.adapter, "--json")
        self.assertEqual(set(info), {"model", "format", "family", "sizes", "tied_embeddings", "parts", "total",
                                     "weight_types", "tokenizer", "adapter", "context_memory"})
        stored = [tiny_model.read_safetensors(folder / name) for folder, name in
                  ((self.model, "model.safetensors"), (self.adapter, "adapter.safetensors"))]
        count = sum(len(data) // 4 for tensors in stored for _, _, data in tensors.values())
        self.assertEqual(info["total"]["parameters"], count)
        self.assertEqual(sum(part["parameters"] for part in info["parts"].values()), count)
        self.assertTrue({"embedding", "attention", "feed_forward", "encoder", "cross_attention"} <= set(info["parts"]))
        self.assertEqual(info["family"], "llama")
        self.assertTrue(info["tokenizer"]["chat_template"])
        self.assertFalse(info["adapter"]["trained"])
        self.assertEqual([entry["tokens"] for entry in info["context_memory"]], [0, 8192, 32768, 131072, 1048576])
        million = info["context_memory"][-1]
        self.assertEqual(million["states_bytes"], 1048576 * tiny_model.WIDTH * 2)
        keys = tiny_model.GROUPS * tiny_model.WIDTH // tiny_model.HEADS
        self.assertEqual(million["full_attention_bytes"], 2 * tiny_model.LAYERS * 1048576 * keys * 2)
        text = self.succeed("info", self.model).out
        for word in ("family", "llama", "1048576", "chat template", "yes"):
            self.assertIn(word, text)

    def test_info_counts_the_adapter_that_is_used_alone(self):
        joined = self.root / "counted"
        self.succeed("convert", self.model, "--adapter", self.adapter, "--output", joined)
        parts = lambda *arguments: self.json_of("info", *arguments, "--json")["parts"]
        self.assertEqual(parts(joined, "--adapter", self.adapter), parts(self.model, "--adapter", self.adapter))
        self.assertEqual(parts(joined, "--adapter", "none"), parts(self.model))

    def test_info_counts_the_bytes_of_quantised_weights(self):
        def parts(*options):
            info = self.json_of("info", self.model, "--adapter", self.adapter, "--json", *options)
            return {name: part["memory_bytes"] for name, part in info["parts"].items()}

        dense, fp8, int8, int4 = (parts("--dtype", dtype) for dtype in ("bfloat16", "fp8", "int8", "int4"))
        self.assertLess(int8["attention"], 0.75 * dense["attention"])
        self.assertLess(int8["feed_forward"], 0.75 * dense["feed_forward"])
        self.assertLess(int4["attention"], 0.5 * dense["attention"])
        on_gpu = parts("--dtype", "fp8", "--device", "cuda")
        self.assertNotEqual(fp8["attention"], dense["attention"])
        self.assertEqual(fp8["attention"], on_gpu["attention"])  # laid out in the same way
        for part in ("embedding", "encoder"):  # stay dense: on a CPU in the file's float32
            self.assertEqual(on_gpu[part], dense[part])
            self.assertEqual(fp8[part], 2 * dense[part])

    def test_tokenize_there_and_back(self):
        text = "Grüße, 世界!\n"
        result = self.json_of("tokenize", text, "--model", self.model, "--json")
        self.assertEqual(result["count"], len(text.encode()))
        self.assertEqual(result["ids"], list(text.encode()))
        ids = self.succeed("tokenize", "--model", self.model, stdin=text).out
        self.assertEqual(self.succeed("tokenize", "--decode", ids, "--model", self.model).out, text + "\n")
        file = self.write("text.txt", text)
        self.assertEqual(self.succeed("tokenize", "--count", "--file", file, "--model", self.model).out,
                         f"{len(text.encode())}\n")
        named = self.succeed("tokenize", "--count", file, "--model", self.model)
        self.assertEqual(named.out, f"{len(file.as_posix())}\n")
        self.assertIn(f"--file {file}", named.err)
        self.assertEqual(self.succeed("tokenize", "x" * 9000, "--model", self.model).err, "")
        self.assertEqual(self.json_of("tokenize", "<|end|>", "--model", self.model, "--json")["count"], 7)
        self.refuse("no token id", "tokenize", "--decode", "1 two", "--model", self.model)
        self.refuse("999999", "tokenize", "--decode", "999999", "--model", self.model)

    def test_safetensors_survive_conversion_bit_for_bit(self):
        self.succeed("convert", self.model, "--output", self.root / "copy")
        self.assertEqual(tiny_model.read_safetensors(self.root / "copy/model.safetensors"),
                         tiny_model.read_safetensors(self.model / "model.safetensors"))
        self.assertEqual(self.generate("--prompt", "abc").out,
                         self.succeed("generate", "--model", self.root / "copy", "--prompt", "abc", "--max-tokens",
                                      "12").out)

    def test_decoder_and_adapter_join_into_a_published_folder_and_come_apart_again(self):
        joined, apart = self.root / "joined", self.root / "apart"
        self.succeed("convert", self.model, "--adapter", self.adapter, "--output", joined)
        config = json.loads((joined / "config.json").read_text())
        self.assertTrue(config["do_cross_attention"])
        self.assertEqual(config["num_cross_attn_layers"], 2)
        self.assertEqual(config["encoder_config"]["vocab_size"], tiny_model.VOCABULARY)
        self.succeed("convert", joined, "--output", apart)
        self.assertEqual(tiny_model.read_safetensors(apart / "decoder/model.safetensors"),
                         tiny_model.read_safetensors(self.model / "model.safetensors"))
        book = self.write("book.txt", "All the world is a stage. " * 9)
        results = []
        for arguments in ((self.model, "--adapter", self.adapter), (joined,),
                          (apart / "decoder", "--adapter", apart / "adapter")):
            results.append(self.json_of("generate", "--model", *arguments, "--document", book, "--prompt", "Q:",
                                        "--max-tokens", "12", "--json")["tokens"])
        self.assertEqual(results[0], results[1])
        self.assertEqual(results[1], results[2])

    def test_what_convert_cannot_do_is_refused_before_a_folder_is_made(self):
        joined, output = self.root / "published", self.root / "refused"
        self.succeed("convert", self.model, "--adapter", self.adapter, "--output", joined)
        self.refuse("which has its adapter", "convert", joined, "--adapter", self.adapter, "--output", output)
        self.refuse("--dtype int8", "convert", self.model, "--dtype", "int8", "--output", output)
        self.assertFalse(output.exists())
        self.refuse("--output: expected", "convert", self.model, "--output", "")

    def test_shards_are_told_by_their_own_format(self):
        folder = self.root / "sharded"
        shutil.copytree(self.model, folder)
        (folder / "model.safetensors").rename(folder / "part.safetensors")
        names = tiny_model.read_safetensors(folder / "part.safetensors")
        (folder / "model.safetensors.index.json").write_text(
            json.dumps({"weight_map": {name: "part.safetensors" for name in names}}))
        self.assertEqual(self.json_of("info", folder, "--json")["format"], "safetensors")

    def test_adapter_starts_repeat_with_their_seed(self):
        def made(name, *arguments):
            self.succeed("adapter", "init", "--model", self.model, "--encoder-layers", "1",
                         "--cross-attention-layers", "0,2", *arguments, "--output", self.root / name)
            return tiny_model.read_safetensors(self.root / name / "adapter.safetensors")

        self.assertEqual(made("one", "--seed", "3"), made("two", "--seed", "3"))
        self.assertNotEqual(made("three", "--seed", "4"), made("four", "--seed", "3"))
        config = json.loads((self.root / "one/config.json").read_text())
        self.assertFalse(config["trained"])
        self.assertEqual(config["cross_attention_layers"], [0, 2])
        for start in ("copy", "zero", "normal", "none", "scaled"):
            made("start-" + start, "--start", start, "--int8")
        small = (self.root / "start-scaled/adapter.safetensors").stat().st_size
        self.assertLess(small, (self.root / "one/adapter.safetensors").stat().st_size / 2)

    def test_zero_start_leaves_the_answer_as_it_is(self):
        self.succeed("adapter", "init", "--model", self.model, "--encoder-layers", "1", "--start", "zero", "--output",
                     self.root / "zero")
        book = self.write("any.txt", "any text")
        self.assertEqual(self.generate("--adapter", self.root / "zero", "--document", book, "--prompt", "abc").out,
                         self.generate("--prompt", "abc").out)

    def test_bench_tells_figure_bound_and_ratio(self):
        result = self.json_of("bench", "--model", self.model, "--adapter", self.adapter, "--contexts", "0,1K",
                              "--tokens", "4", "--json")
        self.assertEqual(set(result), {"model", "device", "memory_bandwidth_bytes_per_second", "decode", "encode",
                                       "peak_memory_bytes"})
        self.assertEqual(result["device"], "cpu")
        self.assertEqual([entry["context_tokens"] for entry in result["decode"]], [0, 1024])
        for entry in result["decode"]:
            self.assertEqual(set(entry), {"context_tokens", "sequences", "tokens_per_second", "first_token_seconds",
                                          "bytes_per_token", "bound_tokens_per_second", "ratio"})
            self.assertAlmostEqual(entry["bound_tokens_per_second"] * entry["bytes_per_token"],
                                   result["memory_bandwidth_bytes_per_second"],
                                   delta=1e-6 * result["memory_bandwidth_bytes_per_second"])
            self.assertAlmostEqual(entry["ratio"], entry["tokens_per_second"] / entry["bound_tokens_per_second"])
        self.assertEqual(result["encode"]["tokens"], 1024)

    def test_bench_counts_what_sequences_share_once(self):
        arguments = ("bench", "--model", self.model, "--adapter", self.adapter, "--contexts", "1K", "--tokens", "4",
                     "--json")
        alone, shared, own = (self.json_of(*arguments, *more)["decode"][0]["bytes_per_token"]
                              for more in ((), ("--sequences", "4"), ("--sequences", "4", "--own-contexts")))
        self.assertAlmostEqual(shared, alone / 4, delta=4)
        self.assertGreater(own, shared)
        self.assertLess(own, alone)

    def test_bench_of_a_shape_measures_every_part_without_a_model(self):
        arguments = ("bench", "--shape", "tiny", "--contexts", "512,1K", "--tokens", "6", "--sequences", "3",
                     "--decoder-tokens", "64", "--prompt-tokens", "32", "--row-tokens", "70", "--runs", "1", "--json")
        rows = self.json_of(*arguments)["rows"]
        names = [(row["what"], row["context_tokens"], row["sequences"]) for row in rows]
        for what in ("encode", "first token", "a token, full attention"):
            self.assertIn((what, 1024, 1), names)
        for what in ("forward", "forward, full attention", "a token, absorbed"):
            self.assertTrue({(what, 512, 1), (what, 1024, 1)} <= set(names), what)
        for what in ("a context each, absorbed", "one context, absorbed", "one context, kept K and V"):
            self.assertIn(("3 sequences, " + what, 1024, 3), names)
        for row in rows:
            self.assertGreater(row["bound_seconds"], 0)
            self.assertAlmostEqual(row["ratio"], row["bound_seconds"] / row["seconds"])
        some = self.json_of(*arguments, "--parts", "steps", "--no-full-attention")["rows"]
        self.assertEqual([row["what"] for row in some], ["a token, absorbed"] * 2)

    def test_bench_without_contexts_leaves_out_none_where_there_is_no_such_row(self):
        document = self.write("whole.txt", "All the world is a stage. " * 5100)
        told = self.json_of("bench", "--model", self.model, "--adapter", self.adapter, "--document", document,
                            "--cache-dir", self.root / "whole", "--tokens", "2", "--json")["documents"]
        self.assertEqual([row["context_tokens"] for row in told], [8192, 32768, 130048])
        rows = self.json_of("bench", "--shape", "tiny", "--parts", "steps", "--no-full-attention", "--tokens", "2",
                            "--runs", "1", "--json")["rows"]
        self.assertEqual([row["context_tokens"] for row in rows], [8192, 32768, 130048])
        self.refuse("at least 256", "bench", "--shape", "tiny", "--contexts", "0,1K")

    def test_bench_takes_enough_of_a_document_whose_runs_of_spaces_the_tokenizer_makes_one(self):
        tokenizer = json.loads((self.model / "tokenizer.json").read_text())
        tokenizer["normalizer"] = {"type": "Replace", "pattern": {"Regex": " +"}, "content": " "}
        collapsing = self.write("collapsing.json", json.dumps(tokenizer))
        document = self.write("wide.txt", ("a" + " " * 50) * 1000)
        rows = self.json_of("bench", "--model", self.model, "--adapter", self.adapter, "--document", document,
                            "--tokenizer", collapsing, "--contexts", "1024", "--tokens", "2", "--cache-dir",
                            self.root / "wide", "--json")["documents"]
        self.assertEqual([row["context_tokens"] for row in rows], [1024])

    def test_bench_names_the_device_whose_memory_it_measured(self):
        text = self.succeed("bench", "--model", self.model, "--adapter", "none", "--contexts", "0", "--tokens", "2").out
        self.assertRegex(text, r"(?m)^memory bandwidth +[0-9.]+ GB/s \(cpu\)$")
        self.assertNotIn("encode ", text)
        self.assertNotIn("on the GPU", text)

    def test_eval_lm_scores_the_same_windows_with_every_length_of_context(self):
        books = self.write("books.jsonl", "".join(
            json.dumps({"id": str(n), "text": f"line {n} of a book that repeats itself. " * 40}) + "\n"
            for n in range(3)) + json.dumps({"id": "short", "text": "too short"}) + "\n")
        arguments = ("eval", "lm", "--model", self.model, "--adapter", self.adapter, "--text", books,
                     "--decoder-tokens", "64", "--target-tokens", "16", "--samples", "2", "--seed", "5",
                     "--context-tokens", "0,300,600")
        outcome = self.succeed(*arguments, "--json")
        lines = [json.loads(line) for line in outcome.out.splitlines()]
        self.assertEqual([line["context_tokens"] for line in lines], [0, 300, 600])
        for line in lines:
            self.assertEqual(set(line), {"context_tokens", "perplexity", "nll", "stderr", "tokens", "documents",
                                         "seconds", "peak_memory_bytes"})
            self.assertEqual((line["documents"], line["tokens"]), (3, 3 * 2 * 16))
        self.assertNotEqual(lines[0]["nll"], lines[1]["nll"])
        again = [json.loads(line) for line in self.succeed(*arguments, "--json").out.splitlines()]
        self.assertEqual([line["nll"] for line in again], [line["nll"] for line in lines])
        other = self.succeed(*arguments, "--context", "other", "--json").out.splitlines()
        self.assertEqual(json.loads(other[0])["nll"], lines[0]["nll"])
        self.assertNotEqual(json.loads(other[1])["nll"], lines[1]["nll"])
        self.assertIn("perplexity", self.succeed(*arguments).out)

    def test_names_of_documents_steer_no_terminal(self):
        cache = ("--cache-dir", self.root / "names-cache")
        document = self.write("a\x1b[31m\nb.txt", "hello there. " * 30)
        self.succeed("encode", "--model", self.model, "--adapter", self.adapter, *cache, document)
        self.assertIn("/a\\x1b[31m\\nb.txt: ", self.succeed("store", "ls", *cache).out)

    def test_encode_fills_the_store_once_and_generate_finds_all_of_it(self):
        folder = self.root / "encode"
        folder.mkdir()
        (folder / "one.txt").write_text("".join(f"Sentence {n} of the first. " for n in range(300)))
        (folder / "two.txt").write_text("".join(f"Line {n} of another one. " for n in range(250)))
        cache = ("--cache-dir", self.root / "encode-cache")
        model = ("--model", self.model, "--adapter", self.adapter)
        store = lambda name, *more, **options: json.loads(self.succeed("store", name, *cache, "--json", *more, **options).out)
        first = json.loads(self.succeed("encode", folder, *model, *cache, "--json").out)
        self.assertEqual((first["documents"], first["found"]), (2, 0))
        self.assertEqual(first["encoded"], first["chunks"])
        again = self.succeed("encode", folder, *model, *cache, "--json")
        self.assertEqual(json.loads(again.out)["encoded"], 0)
        self.assertIn(f"{first['chunks']} found", again.err)
        listed = store("ls")
        self.assertEqual(listed["chunks"], first["chunks"])
        self.assertEqual([document["source"] for document in listed["documents"]],
                         [str(folder / "one.txt"), str(folder / "two.txt")])
        self.assertIn(str(folder / "two.txt"), self.succeed("store", "ls", *cache).out)
        answer = json.loads(self.succeed("generate", *model, *cache, "--document", folder, "--prompt", "Q:",
                                         "--max-tokens", "2", "--json").out)
        self.assertEqual(answer["chunks"]["encoded"], 0)
        small = json.loads(self.succeed("encode", folder, *model, *cache, "--state-type", "int8", "--json").out)
        self.assertEqual(small["encoded"], first["chunks"])
        self.assertLess(store("ls")["bytes"], 2 * listed["bytes"])

        verified = store("verify")
        self.assertEqual(verified.pop("kept")["chunks"], 0)
        self.assertEqual(verified, {"folder": listed["folder"], "chunks": 2 * first["chunks"],
                                    "bytes": store("ls")["bytes"], "damaged": 0, "unreadable": 0})
        segment = Path(listed["folder"]) / listed["segments"][0]["file"]
        content = bytearray(segment.read_bytes())
        content[500] ^= 1
        segment.write_bytes(content)
        damaged = self.run_program("store", "verify", *cache)
        self.assertEqual(damaged.code, 2)
        self.assertIn("1 damaged", damaged.out)
        self.assertEqual(store("verify")["damaged"], 0)
        self.assertEqual(json.loads(self.succeed("encode", folder, *model, *cache, "--json").out)["encoded"], 1)

        collected = store("gc", "--cache-size", "0")
        self.assertEqual(collected["dropped"], 2 * first["chunks"])
        self.assertEqual(store("ls")["file_bytes"], 0)
        self.succeed("encode", folder, *model, *cache)
        self.assertEqual(store("clear")["chunks"], first["chunks"])
        self.assertEqual(store("ls")["chunks"], 0)

    def read_only(self, folder):
        """The same folder on a read-only mount; where none may be made, without permission to write."""
        if os.geteuid() != 0:
            (folder / "chunks").chmod(0o555)
            self.addCleanup((folder / "chunks").chmod, 0o700)
            return folder
        mounted = self.root / (folder.name + "-read-only")
        mounted.mkdir()
        may = lambda *options: subprocess.run(["mount", *options, mounted], capture_output=True).returncode == 0
        if may("--bind", folder):
            self.addCleanup(subprocess.run, ["umount", mounted], check=True)
            if may("-o", "remount,bind,ro"):
                return mounted
        self.skipTest("no read-only folder: this root may not mount")

    def test_what_is_said_on_a_closed_stream_goes_into_no_file(self):
        book = self.write("closed.txt", "A text for the store. " * 200)
        model = ("--model", self.model, "--adapter", self.adapter, "--cache-dir", self.root / "closed-cache")
        run = lambda closed, *arguments: subprocess.run(
            [PROGRAM, *map(str, arguments)], stdin=subprocess.DEVNULL, capture_output=True, env=self.environment(),
            preexec_fn=lambda: os.close(closed), timeout=60)
        self.assertEqual(run(2, "encode", book, *model, "--verbose").returncode, 0)
        said = run(1, "generate", "--prompt", "x", "--document", self.write("closed-too.txt", "Another one. " * 200),
                   *model, "--max-tokens", "8")
        self.assertEqual(said.returncode, 1)
        self.assertIn("standard output: Bad file descriptor", said.stderr.decode())
        read = run(0, "generate", *model)
        self.assertEqual((read.returncode, read.stdout), (1, b""))
        self.assertIn("standard input: Bad file descriptor", read.stderr.decode())
        segments = list((self.root / "closed-cache/chunks").glob("*.pages"))
        self.assertTrue(segments)
        for segment in segments:
            self.assertEqual(segment.stat().st_size % 64, 0)

    def test_a_limit_of_a_files_size_is_an_error_and_leaves_nothing(self):
        output = self.root / "limited"
        process = subprocess.run(
            [PROGRAM, "convert", self.model, "--output", output], capture_output=True, env=self.environment(),
            preexec_fn=lambda: resource.setrlimit(resource.RLIMIT_FSIZE, (1000, 1000)), timeout=60)
        self.assertEqual(process.returncode, 1)
        self.assertIn("model.safetensors: cannot write: File too large", process.stderr.decode())
        self.assertFalse(output.exists())

    def test_a_store_that_cannot_be_written_is_read(self):
        first, second = self.write("shared.txt", "A shared text. " * 200), self.write("own.txt", "My own text. " * 200)
        model = ("--model", self.model, "--adapter", self.adapter)
        self.succeed("encode", first, *model, "--cache-dir", self.root / "shared-cache")
        cache = ("--cache-dir", self.read_only(self.root / "shared-cache"))
        ask = lambda *documents: self.succeed("generate", *model, *cache, "--prompt", "Q:", "--max-tokens", "2", "--json",
                                              *(word for name in documents for word in ("--document", name)))
        found = ask(first)
        self.assertEqual(json.loads(found.out)["chunks"]["encoded"], 0)
        self.assertNotIn("not kept", found.err)
        both = ask(first, second)
        self.assertGreater(json.loads(both.out)["chunks"]["encoded"], 0)
        self.assertGreater(json.loads(both.out)["chunks"]["found"], 0)
        self.assertEqual(both.err.count("encoded text is read from it but not kept"), 1)
        self.assertIn(str(first), self.succeed("store", "ls", *cache).out)
        self.assertIn(" 0 damaged", self.succeed("store", "verify", *cache).out)
        for command in ("gc", "clear"):
            self.refuse(["cannot be written", "nothing is removed"], "store", command, *cache, code=1)
        self.succeed("encode", first, *model, *cache)
        self.refuse("could not be kept", "encode", second, *model, *cache, code=1)

    def test_encode_counts_only_what_it_encoded_as_its_speed(self):
        first, second = self.write("long.txt", "ab" * 5000), self.write("short.txt", "cd" * 128)
        arguments = ("--model", self.model, "--adapter", self.adapter, "--cache-dir", self.root / "speed", "--json")
        self.succeed("encode", first, *arguments)
        outcome = self.succeed("encode", first, second, *arguments)
        told = json.loads(outcome.out)
        self.assertEqual((told["tokens"], told["encoded"]), (10256, 1))
        rate = float(re.search(r"([0-9]+) tokens/s", outcome.err)[1])
        self.assertAlmostEqual(rate * told["seconds"], 256, delta=1)

    def test_encode_refuses_what_cannot_be_kept(self):
        book = self.write("kept.txt", "Some text.")
        model = ("--model", self.model, "--adapter", self.adapter)
        self.refuse("--no-cache", "encode", book, *model, "--no-cache")
        for size in ("0", "0G", "0.5"):
            refused = self.refuse(["--cache-size 0", "nowhere to keep"], "encode", book, *model, "--cache-size", size)
            self.assertNotIn("warning", refused.err, "before the model is opened")
        self.refuse("FILES", "encode", *model)
        self.refuse("no-such-file", "encode", "no-such-file", *model)
        self.refuse("--remote-store", "encode", book, *model, "--remote-store", "cache:6379")
        self.refuse("--chunk-overlap at most 255", "encode", book, *model, "--chunk-overlap", "100000")
        self.refuse(["is not kept", "nothing could be kept there", "--cache-dir"], "encode", book, *model, "--cache-dir",
                    self.write("a-file", ""), code=1)
        self.refuse("cannot be used", "store", "ls", "--cache-dir", self.cache_with_a_file_as_store(), code=1)

    def cache_with_a_file_as_store(self):
        folder = self.root / "odd-cache"
        folder.mkdir()
        (folder / "chunks").write_text("a file")
        return folder

    def test_a_dead_remote_store_costs_one_warning(self):
        book = self.write("remote.txt", "Some text. " * 300)
        outcome = self.succeed("generate", "--model", self.model, "--adapter", self.adapter, "--document", book,
                               "--prompt", "Q:", "--max-tokens", "2", "--remote-store", "redis://127.0.0.1:1")
        self.assertEqual(outcome.err.count("remote store"), 1)

    def test_an_interrupt_does_not_wait_for_a_slow_remote_store(self):
        """One that answers each batch of chunks just in time."""
        book = self.write("slow-remote.txt", "".join(f"Sentence {n} of a book. " for n in range(3000)))
        with socket.create_server(("127.0.0.1", 0)) as server:
            asked, answered = threading.Event(), []

            def serve():
                connection = server.accept()[0]
                with connection, contextlib.suppress(OSError):
                    while request := connection.recv(1 << 20):
                        asked.set()
                        time.sleep(1)
                        connection.sendall(b"$-1\r\n" * request.count(b"GET"))
                        answered.append(request.count(b"GET"))

            threading.Thread(target=serve, daemon=True).start()
            process = self.start("encode", book, "--model", self.model, "--adapter", self.adapter, "--cache-dir",
                                 self.root / "slow-remote", "--remote-store",
                                 f"redis://127.0.0.1:{server.getsockname()[1]}")
            self.assertTrue(asked.wait(60))
            process.send_signal(signal.SIGINT)
            process.communicate(timeout=60)
            self.assertEqual(process.returncode, 130)
            self.assertLess(sum(answered), 100, "of nearly 300 chunks")

    def catches_interrupts(self, process):
        caught = re.search(r"SigCgt:\t(\w+)", Path(f"/proc/{process.pid}/status").read_text())
        return int(caught[1], 16) >> (signal.SIGINT - 1) & 1

    def test_an_interrupt_ends_the_wait_for_a_store_that_another_process_holds(self):
        chunks = self.root / "held-cache" / "chunks"
        chunks.mkdir(parents=True)
        with open(chunks / "catalogue.lock", "w") as lock:
            fcntl.flock(lock, fcntl.LOCK_EX)
            process = self.start("store", "ls", "--cache-dir", chunks.parent)
            while process.poll() is None and not self.catches_interrupts(process):
                time.sleep(0.01)
            time.sleep(1.5)
            self.assertIsNone(process.poll())
            process.send_signal(signal.SIGINT)
            _, said = process.communicate(timeout=60)
            self.assertEqual((process.returncode, said), (130, b""))

    def test_chat_keeps_the_conversation_and_forgets_it_when_told(self):
        arguments = ("chat", "--model", self.model, "--max-tokens", "8", "--verbose")
        outcome = self.succeed(*arguments, stdin="hello\nhello\n/new\nhello\n/quit\n")
        sizes = [int(size) for size in re.findall(r"context \+ (\d+) decoder tokens", outcome.err)]
        self.assertEqual(len(sizes), 3)
        self.assertGreater(sizes[1], sizes[0])
        self.assertEqual(sizes[2], sizes[0])

    def test_what_chat_encodes_is_kept_under_its_documents_name(self):
        document = self.write("talked-of.txt", "No other test has these words. " * 40)
        self.succeed("chat", "--model", self.model, "--adapter", self.adapter, "--max-tokens", "1", "--document",
                     document, stdin="hello\n")
        self.assertIn(str(document), self.succeed("store", "ls").out)

    def test_what_chat_forgot_is_no_context_of_the_next_answer(self):
        outcome = self.succeed("chat", "--model", self.model, "--adapter", self.adapter, "--max-tokens", "8",
                               "--decoder-tokens", "48", "--verbose",
                               stdin="some more words of text " * 30 + "\n/new\nhello\n/quit\n")
        sizes = [int(size) for size in re.findall(r"(\d+) context \+ \d+ decoder tokens", outcome.err)]
        self.assertEqual(len(sizes), 2)
        self.assertGreater(sizes[0], 0)
        self.assertEqual(sizes[1], 0)

    def test_what_is_read_is_not_replaced(self):
        model, adapter = self.root / "own-model", self.root / "own-adapter"
        shutil.copytree(self.model, model)
        shutil.copytree(self.adapter, adapter)
        config = (model / "config.json").read_text()
        self.refuse("this is what is read", "adapter", "init", "--model", model, "--encoder-layers", "1", "--output",
                    model, "--force")
        self.assertEqual((model / "config.json").read_text(), config)
        self.refuse("this is what is read", "adapter", "quantise", adapter, "--model", self.model, "--output", adapter,
                    "--force")

    def test_without_memory_it_says_so(self):
        self.refuse("not enough memory", "bench", "--shape", "tiny", "--sequences", "65536", "--row-tokens", "1048576",
                    "--contexts", "256", "--parts", "batches", "--runs", "1", "--tokens", "2", code=1)

    def test_text_that_is_not_utf8_is_refused_wherever_it_comes_from(self):
        latin = self.root / "latin.txt"
        latin.write_bytes(b"a\ncaf\xe9")
        self.refuse("line 2: not UTF-8", "generate", "--model", self.model, "--prompt-file", latin)
        text = latin.read_bytes()
        self.refuse("--prompt, line 2: not UTF-8", "generate", "--model", self.model, "--prompt", os.fsdecode(text))
        tokenize = ("tokenize", "--model", self.model)
        self.refuse(f"{latin}, line 2: not UTF-8", *tokenize, "--file", latin)
        self.refuse("TEXT, line 2: not UTF-8", *tokenize, os.fsdecode(text))
        with latin.open("rb") as lines:
            process = self.start(*tokenize, stdin=lines)
            out, err = process.communicate(timeout=60)
        self.assertEqual((process.returncode, out), (2, b""))
        self.assertIn("standard input, line 2: not UTF-8", err.decode())
        for command in (("generate", "--chat", "--prompt", "x"), ("chat",)):
            self.refuse("--system, line 2: not UTF-8", *command, "--model", self.model, "--system", os.fsdecode(text),
                        stdin="")
        with latin.open("rb") as lines:
            chat = self.start("chat", "--model", self.model, "--max-tokens", "2", stdin=lines)
            out, err = chat.communicate(timeout=60)
        self.assertEqual(chat.returncode, 2)
        self.assertIn("a message, line 1: not UTF-8", err.decode())

    def test_a_wrong_word_and_a_wrong_number_are_named(self):
        self.refuse("there is no command 'cepe genrate'", "genrate", "--prompt", "x")
        self.refuse("'-1' is not a whole number", "generate", "--prompt", "x", "--seed", "-1")

    def test_completion_scripts_are_accepted_by_their_shells(self):
        for shell in ("bash", "zsh", "fish"):
            script = self.write(f"completion.{shell}", self.succeed("completion", shell).out)
            if shutil.which(shell):
                subprocess.run([shell, "-n", script], check=True)

    def test_bash_completes_commands_options_values_and_files(self):
        script = self.write("completion.bash", self.succeed("completion", "bash").out)
        folder = self.root / "completed"
        folder.mkdir()
        (folder / "a book.txt").write_text("text")
        for words, expected in (("store cl", "clear"), ("generate --docu", "--document"), ("completion ''", "bash zsh fish"),
                                ("encode ''", "a book.txt"), ("encode a", "a book.txt"), ("encode --js", "--json"),
                                ("generate --document ''", "a book.txt"), ("encode --state-type i", "int8")):
            ask = (f'source {script}; COMP_WORDS=(cepe {words}); COMP_CWORD=$((${{#COMP_WORDS[@]}} - 1)); _cepe; '
                   'echo "${COMPREPLY[@]}"')
            answer = subprocess.run(["bash", "-c", ask], cwd=folder, capture_output=True, text=True, check=True)
            self.assertEqual(answer.stdout.strip(), expected, words)


class DefaultModel(ProgramTest):
    """Where scripts/fetch-models has put it."""

    @classmethod
    def environment(cls):
        return os.environ | {"OMP_NUM_THREADS": "1"}

    def setUp(self):
        outcome = self.run_program("info", "--json")
        if outcome.code != 0:
            self.skipTest("the default model is not fetched")
        self.file = Path(json.loads(outcome.out)["model"])

    def test_it_knows_the_capital_of_france(self):
        self.assertIn("Paris", self.succeed("generate", "--prompt", "The capital of France is", "--max-tokens", "3",
                                            "--adapter", "none").out)

    def test_its_conversion_to_safetensors_answers_the_same(self):
        self.succeed("convert", self.file, "--output", self.root / "smollm2")
        answers = [
            json.loads(self.succeed("generate", "--model", model, "--tokenizer", self.file, "--prompt",
                                    "The capital of France is", "--max-tokens", "6", "--dtype", "float32",
                                    "--json").out)["tokens"]
            for model in (self.file, self.root / "smollm2")
        ]
        self.assertEqual(answers[0], answers[1])

    def test_the_next_process_reads_k_and_v_of_a_document_from_disk(self):
        book = self.write("book.txt", (REPOSITORY / "books/tristram-shandy.txt").read_text()[:40000])
        cache = ("--cache-dir", self.root / "kept-cache")
        ask = ("generate", "--model", self.file, "--adapter", REPOSITORY / "models/smollm2-135m-instruct-cepe",
               "--document", book, "--prompt", "My uncle Toby", "--max-tokens", "8", *cache)
        kept = lambda: json.loads(self.succeed("store", "ls", "--json", *cache).out)["kept"]
        without = self.succeed(*ask, "--kept-disk", "0").out
        self.assertEqual(kept()["chunks"], 0)
        self.assertEqual(self.succeed(*ask).out, without)
        there = kept()
        self.assertGreater(there["chunks"], 30)
        self.assertEqual(self.succeed(*ask).out, without)
        self.assertEqual(kept(), there, "what is not found is written again")
        self.assertIn("K and V: ", self.succeed("store", "verify", *cache).out)
        self.succeed("store", "gc", "--kept-disk", "8M", *cache)
        self.assertLessEqual(kept()["file_bytes"], 8 << 20)
        self.succeed("store", "clear", *cache)
        self.assertEqual(kept()["chunks"], 0)
        self.assertIn("without effect", self.succeed(*ask, "--kept-disk", "1G", "--kept-type", "bfloat16").err)

    def test_encode_makes_k_and_v_ahead_of_the_first_question(self):
        book = self.write("book.txt", (REPOSITORY / "books/tristram-shandy.txt").read_text()[:40000])
        model = ("--model", self.file, "--adapter", REPOSITORY / "models/smollm2-135m-instruct-cepe", "--cache-dir",
                 self.root / "encoded-cache")
        kept = lambda: json.loads(self.succeed("store", "ls", "--json", "--cache-dir", model[-1]).out)["kept"]
        self.refuse(["--kept-disk", "more than 1.00 MiB"], "encode", book, *model, "--kept-disk", "1M")
        made = json.loads(self.succeed("encode", book, *model, "--kept-disk", "1G", "--json").out)
        self.assertEqual(made["kept"], {"made": made["chunks"], "found": 0})
        there = kept()
        self.assertEqual(there["chunks"], made["chunks"])
        found = self.succeed("encode", book, *model, "--kept-disk", "auto")
        self.assertIn(f"K and V of 0 made, {made['chunks']} found", found.err)
        ask = ("generate", "--document", book, "--prompt", "My uncle Toby", "--max-tokens", "8", *model)
        self.assertEqual(self.succeed(*ask).out, self.succeed(*ask, "--kept-disk", "0").out)
        self.assertEqual(kept(), there, "what was found is written again")
        short = self.write("short.txt", "Some text.")
        self.assertIn("without effect", self.succeed("encode", short, *model, "--kept-disk", "1G").err)
        self.assertEqual(kept(), there)


if __name__ == "__main__":
    unittest.main()
