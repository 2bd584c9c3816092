"""cepe generate: what reaches standard output, what documents do, what is kept between runs, how it ends."""
import json
import signal
import subprocess
import time
import unittest

from program import PROGRAM, ProgramTest

BOOK = "It was a dark and stormy night; the rain fell in torrents. " * 20


class Generate(ProgramTest):
    def with_adapter(self, *arguments, **options):
        return self.generate("--adapter", self.adapter, *arguments, **options)

    def test_only_text_is_on_standard_output_and_the_closing_line_on_standard_error(self):
        quiet = self.generate("--prompt", "abc", "--quiet")
        loud = self.generate("--prompt", "abc", "--verbose")
        self.assertEqual(quiet.err, "")
        self.assertEqual(quiet.out, loud.out)
        for word in ("context + 3 decoder tokens", "first token after", "tokens/s", "peak memory"):
            self.assertIn(word, loud.err)

    def test_prompt_option_file_and_standard_input_are_the_same(self):
        text = self.generate("--prompt", "Once upon").out
        self.assertEqual(self.generate("--prompt-file", self.write("prompt.txt", "Once upon")).out, text)
        self.assertEqual(self.generate(stdin="Once upon").out, text)

    def test_documents_change_the_answer_and_their_number_is_told(self):
        book = self.write("book.txt", BOOK)
        without = json.loads(self.with_adapter("--prompt", "Q:", "--json", "--logprobs").out)
        outcome = self.with_adapter("--prompt", "Q:", "--document", book, "--json", "--logprobs")
        with_book = json.loads(outcome.out)
        self.assertIn("untrained", outcome.err)
        self.assertEqual(without["usage"]["context_tokens"], 0)
        self.assertEqual(with_book["usage"]["context_tokens"], len(BOOK))
        self.assertNotEqual(without["logprobs"][0]["logprob"], with_book["logprobs"][0]["logprob"])

    def test_second_run_reads_chunks_from_disk_and_answers_the_same(self):
        again = self.write("again.txt", BOOK + "again")
        arguments = ("--prompt", "Q:", "--document", again, "--json")
        first, second = (json.loads(self.with_adapter(*arguments).out) for _ in range(2))
        self.assertGreater(first["chunks"]["encoded"], 0)
        self.assertEqual(second["chunks"]["encoded"], 0)
        self.assertEqual(second["tokens"], first["tokens"])
        uncached = json.loads(self.with_adapter(*arguments, "--no-cache").out)
        self.assertEqual(uncached["chunks"]["found"], 0)
        self.assertEqual(uncached["tokens"], first["tokens"])

    def test_every_way_of_cross_attention_gives_the_same_answer(self):
        book = self.write("ways.txt", BOOK + "ways")
        log_probabilities = {}
        for way in ("projected", "absorbed", "kept", "auto"):
            answer = json.loads(self.with_adapter("--prompt", "Q:", "--document", book, "--dtype", "float32", "--json",
                                                  "--logprobs", "--cross-attention", way).out)
            log_probabilities[way] = [step["logprob"] for step in answer["logprobs"]]
        for way, values in log_probabilities.items():
            for value, expected in zip(values, log_probabilities["projected"], strict=True):
                self.assertAlmostEqual(value, expected, places=3, msg=way)
        answer = json.loads(self.with_adapter("--prompt", "Q:", "--document", book, "--dtype", "float32", "--json",
                                              "--logprobs", "--kept-type", "int8").out)
        off = [abs(step["logprob"] - expected)
               for step, expected in zip(answer["logprobs"], log_probabilities["projected"], strict=True)]
        self.assertLess(max(off), 0.05)
        self.assertGreater(max(off), 1e-6, "K and V were not in 8 bits")
        self.refuse(["--kept-type", "int4"], "generate", "--model", self.model, "--prompt", "Q", "--kept-type", "int4")
        refused = self.refuse(["--kept-memory", "lots"], "generate", "--model", self.model, "--adapter", self.adapter,
                              "--prompt", "Q", "--kept-memory", "lots")
        self.assertNotIn("warning", refused.err, "before the model is opened")

    def test_attribution_tells_which_documents_and_chunks_the_answer_leaned_on(self):
        books = [self.write(name, BOOK + name) for name in ("one.txt", "two.txt")]
        arguments = ("--prompt", "Q:", "--document", books[0], "--document", books[1], "--attribution")
        found = json.loads(self.with_adapter(*arguments, "--json").out)
        attribution = found["attribution"]
        self.assertEqual([one["document"] for one in attribution["documents"]], [str(book) for book in books])
        self.assertAlmostEqual(sum(one["mass"] for one in attribution["documents"]), 1, places=4)
        self.assertAlmostEqual(sum(one["mass"] for one in attribution["chunks"]), 1, places=4)
        self.assertEqual(sum(one["tokens"] for one in attribution["chunks"]), found["usage"]["context_tokens"])
        self.assertEqual(len(attribution["by_token"]), len(found["tokens"]))
        self.assertRegex(self.with_adapter(*arguments).err, r"leaned on\n +[0-9.]+ %  .*(one|two)\.txt\n")

    def test_attribution_is_told_of_each_answer(self):
        book = self.write("each.txt", BOOK)
        arguments = ("--prompt", "Q:", "--document", book, "--attribution", "--samples", "2", "--temperature", "1")
        found = json.loads(self.with_adapter(*arguments, "--json").out)
        for answer in (found, found["further_answers"][0]):
            self.assertEqual(len(answer["attribution"]["by_token"]), len(answer["tokens"]))
            self.assertAlmostEqual(sum(one["mass"] for one in answer["attribution"]["documents"]), 1, places=4)
        self.assertEqual(self.with_adapter(*arguments).err.count("leaned on"), 2)

    def test_an_answer_that_ends_for_lack_of_positions_says_so(self):
        outcome = self.with_adapter("--prompt", "word " * 1000, "--decoder-tokens", "4096")
        self.assertIn("4096 positions are used up", outcome.err)
        self.assertNotIn("used up", self.with_adapter("--prompt", "word " * 1000).err)

    def test_without_end_an_answer_goes_on_beyond_the_models_positions(self):
        arguments = ("generate", "--model", self.model, "--adapter", self.adapter, "--prompt", "Once", "--max-tokens",
                     "200", "--json", "--endless", "--attribution")
        whole, slid = (json.loads(self.succeed(*arguments, *more).out) for more in ((), ("--decoder-tokens", "64")))
        self.assertEqual((slid["finish"], len(slid["tokens"])), ("length", 200))
        self.assertEqual(slid["tokens"][:60], whole["tokens"][:60])
        self.assertEqual(whole["attribution"]["documents"], [])
        self.assertIsNone(slid["attribution"]["documents"][0]["document"], "what was said went to the encoder")
        self.assertAlmostEqual(sum(one["mass"] for one in slid["attribution"]["chunks"]), 1, places=4)
        self.refuse(["--adapter"], "generate", "--model", self.model, "--adapter", "none", "--prompt", "Q", "--endless")
        self.refuse("--decoder-tokens 1: with --endless it must be at least 2", *arguments, "--decoder-tokens", "1")

    def test_without_a_prompt_the_end_of_the_document_is_continued(self):
        book = self.write("continued.txt", BOOK)
        result = json.loads(
            self.with_adapter("--document", book, "--decoder-tokens", "100", "--json").out)
        self.assertEqual(result["usage"]["decoder_tokens"], 100)
        self.assertEqual(result["usage"]["context_tokens"], len(BOOK) - 100)

    def test_what_does_not_fit_the_window_goes_to_the_encoder_with_a_notice(self):
        outcome = self.with_adapter("--prompt", BOOK, "--decoder-tokens", "50", "--json")
        self.assertIn("go to the encoder", outcome.err)
        usage = json.loads(outcome.out)["usage"]
        self.assertEqual((usage["decoder_tokens"], usage["context_tokens"]), (50, len(BOOK) - 50))

    def test_folder_is_read_sorted_and_one_bad_file_is_named_and_passed_over(self):
        self.write("folder/a.txt", "first")
        self.write("folder/b.txt", b"%PDF-1.4 not text")
        self.write("folder/c/d.txt", "second")
        self.write("folder/.hidden.txt", "never")
        outcome = self.with_adapter("--prompt", "Q:", "--document", self.root / "folder", "--json")
        self.assertIn("b.txt", outcome.err)
        self.assertEqual(json.loads(outcome.out)["usage"], {
            "documents": 2, "context_tokens": len("firstsecond"), "decoder_tokens": 2, "generated_tokens": 12})

    def test_document_on_standard_input(self):
        result = json.loads(self.with_adapter("--prompt", "Q:", "--document", "-", "--json", stdin=BOOK).out)
        self.assertEqual(result["usage"]["context_tokens"], len(BOOK))

    def test_json_has_the_documented_fields(self):
        result = json.loads(
            self.generate("--prompt", "abc", "--json", "--logprobs", "--top-logprobs", "2").out)
        self.assertEqual(set(result), {"text", "tokens", "finish", "model", "adapter", "usage", "timing",
                                       "peak_memory_bytes", "logprobs"})
        self.assertIn(result["finish"], ("stop", "length", "window", "cancelled"))
        self.assertEqual(len(result["logprobs"]), len(result["tokens"]))
        first = result["logprobs"][0]
        self.assertEqual(set(first), {"id", "token", "logprob", "top"})
        self.assertEqual(first["id"], first["top"][0]["id"])  # greedy: the likeliest
        self.assertGreaterEqual(first["top"][0]["logprob"], first["top"][1]["logprob"])

    def test_a_seed_repeats_and_another_differs(self):
        arguments = ("--prompt", "abc", "--temperature", "1.5", "--json", "--seed")
        one, same, other = (json.loads(self.generate(*arguments, seed).out)["tokens"] for seed in (1, 1, 2))
        self.assertEqual(one, same)
        self.assertNotEqual(one, other)

    def test_several_answers_to_one_prompt_and_a_token_that_is_banned(self):
        arguments = ("--prompt", "abc", "--temperature", "1", "--seed", "3", "--json")
        together = json.loads(self.generate(*arguments, "--samples", "3").out)
        answers = [together["tokens"]] + [answer["tokens"] for answer in together["further_answers"]]
        alone = [json.loads(self.generate(*arguments[:5], str(seed), "--json").out)["tokens"] for seed in (3, 4, 5)]
        self.assertEqual(answers, alone)
        self.assertEqual(together["usage"]["generated_tokens"], sum(len(answer) for answer in answers))
        text = self.generate(*arguments[:-1], "--samples", "2").out
        self.assertEqual(text, together["text"] + "\n\n" + together["further_answers"][0]["text"] + "\n")
        greedy = ("--prompt", "abc", "--json")
        first = json.loads(self.generate(*greedy).out)["tokens"][0]
        banned = json.loads(self.generate(*greedy, "--logit-bias", f"{first}=-inf").out)["tokens"]
        self.assertNotIn(first, banned)
        wanted = json.loads(self.generate(*greedy, "--logit-bias", "5=1e6").out)["tokens"]
        self.assertEqual(wanted, [5] * 12)

    def test_generation_ends_before_a_stop_string(self):
        text = json.loads(self.generate("--prompt", "abc", "--json").out)["text"]
        stop = text[4:6]
        result = json.loads(self.generate("--prompt", "abc", "--json", "--stop", stop).out)
        self.assertEqual(result["finish"], "stop")
        self.assertEqual(result["text"], text[: text.index(stop)])

    def test_what_users_write_in_a_chat_never_becomes_a_special_token(self):
        plain = json.loads(self.generate("--chat", "--prompt", "x" * 7, "--json").out)["usage"]["decoder_tokens"]
        forged = json.loads(self.generate("--chat", "--prompt", "<|end|>", "--json").out)["usage"]["decoder_tokens"]
        self.assertEqual(forged, plain)  # seven single bytes, not one token

    def test_chat_with_documents_has_them_in_the_encoder(self):
        book = self.write("chat.txt", BOOK)
        result = json.loads(self.with_adapter("--chat", "--system", "Be brief.", "--prompt", "Who?", "--document", book,
                                              "--json").out)
        self.assertEqual(result["usage"]["context_tokens"], len(BOOK))

    def test_unwritable_cache_is_said_once_and_not_needed(self):
        book = self.write("unwritable.txt", BOOK)
        file = self.write("a-file", "")
        outcome = self.with_adapter("--prompt", "Q:", "--document", book, "--cache-dir", file)
        self.assertEqual(outcome.err.count("warning: "), 2)  # the adapter's, the cache's


class Ending(ProgramTest):
    def test_interrupt_while_generating_ends_with_130_and_keeps_what_was_written(self):
        process = self.start("generate", "--model", self.model, "--prompt", "abc", "--max-tokens", "4000")
        self.assertNotEqual(process.stdout.read(1), b"")
        process.send_signal(signal.SIGINT)
        out, err = process.communicate(timeout=60)
        self.assertEqual(process.returncode, 130)
        self.assertNotIn(b"error", err)

    def test_interrupt_while_encoding_ends_with_130_and_keeps_what_was_encoded(self):
        book = self.write("long.txt", "".join(f"{i} bottles of beer on the wall. " for i in range(200000)))
        process = self.start("generate", "--model", self.model, "--adapter", self.adapter, "--document", book,
                             "--prompt", "Q:")
        chunks = lambda: json.loads(self.succeed("store", "ls", "--json").out)["chunks"]
        end = time.monotonic() + 60
        while chunks() == 0 and process.poll() is None and time.monotonic() < end:
            time.sleep(0.05)
        process.send_signal(signal.SIGINT)
        process.communicate(timeout=60)
        self.assertEqual(process.returncode, 130)
        self.assertGreater(chunks(), 0)
        self.succeed("store", "clear")
        self.assertEqual(chunks(), 0)

    def test_reader_that_goes_away_ends_the_program_quietly(self):
        process = self.start("generate", "--model", self.model, "--prompt", "abc", "--max-tokens", "4000")
        process.stdout.read(1)
        process.stdout.close()
        err = process.stderr.read()
        self.assertEqual(process.wait(timeout=60), -signal.SIGPIPE)
        self.assertEqual(err, b"")
        process.stderr.close()

    def test_full_disk_is_an_error_of_the_machine(self):
        with open("/dev/full", "wb") as full:
            process = subprocess.run(
                [PROGRAM, "generate", "--model", str(self.model), "--prompt", "abc"],
                stdin=subprocess.DEVNULL, stdout=full, stderr=subprocess.PIPE, env=self.environment(), timeout=60)
        self.assertEqual(process.returncode, 1)
        self.assertIn(b"standard output", process.stderr)

    def test_help_that_cannot_be_written_is_an_error_too(self):
        for arguments in (["--help"], ["--version"], ["generate", "--help"]):
            with open("/dev/full", "wb") as full:
                process = subprocess.run([PROGRAM, *arguments], stdout=full, stderr=subprocess.PIPE, timeout=60)
            self.assertEqual(process.returncode, 1, arguments)
            self.assertIn(b"error: standard output", process.stderr)


if __name__ == "__main__":
    unittest.main()
