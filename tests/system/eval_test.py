"""cepe eval: controls on the same target tokens, and their comparison document by document."""
import json
import math
import unittest

from program import ProgramTest


class Eval(ProgramTest):
    @classmethod
    def setUpClass(cls):
        super().setUpClass()
        cls.books = cls.root / "books.jsonl"
        cls.books.write_text("".join(
            json.dumps({"id": f"book {n}", "text": " ".join(f"{n * k * k % 977} bottles" for k in range(150))}) + "\n"
            for n in range(3, 7)))

    def arguments(self, *more, contexts="0,320", room="500"):
        return ("eval", "lm", "--model", self.model, "--adapter", self.adapter, "--dtype", "float32", "--text",
                self.books, "--decoder-tokens", "64", "--target-tokens", "16", "--samples", "2", "--seed", "5",
                "--room", room, "--context-tokens", contexts, "--json", "--by-document", *more)

    def measure(self, *more, **options):
        return [json.loads(line) for line in self.succeed(*self.arguments(*more, **options)).out.splitlines()]

    def saved(self, name, *more, **options):
        return self.write(name, self.succeed(*self.arguments(*more, **options)).out)

    def nlls(self, line):
        return [document["nll"] for document in line["by_document"]]

    def test_by_document_adds_up_to_the_whole(self):
        for line in self.measure():
            self.assertEqual([document["id"] for document in line["by_document"]],
                             ["book 3", "book 4", "book 5", "book 6"])
            self.assertEqual([document["tokens"] for document in line["by_document"]], [32] * 4)
            self.assertAlmostEqual(sum(self.nlls(line)) / 4, line["nll"], places=12)
        self.refuse("--json", "eval", "lm", "--model", self.model, "--text", self.books, "--by-document")

    def test_ids_that_cannot_be_paired_are_told_before_documents_are_scored(self):
        self.assertNotIn("occurs twice", self.succeed(*self.arguments()).err)
        twice = self.succeed(*self.arguments("--text", self.books))
        self.assertIn("warning: --by-document: document 'book 3' occurs twice", twice.err)
        self.refuse("'book 3' occurs twice", "eval", "compare", *[self.write("twice.jsonl", twice.out)] * 2)

    def test_texts_and_outputs_that_hold_nothing_are_told_so(self):
        empty = self.write("empty.txt", "")
        self.refuse("the texts are empty", "eval", "lm", "--model", self.model, "--text", empty, "--context-tokens", "0")
        self.refuse("this is a folder; expected a file", "eval", "compare", self.root, self.root)

    def test_quantised_weights_score_nearly_the_same(self):
        exact = self.measure()
        for dtype, tolerance in (("int8", 0.05), ("fp8", 0.2), ("int4", 0.5)):
            arguments = [dtype if argument == "float32" else argument for argument in self.arguments()]
            found = [json.loads(line) for line in self.succeed(*arguments).out.splitlines()]
            for line, reference in zip(found, exact):
                self.assertNotEqual(line["nll"], reference["nll"], dtype)
                self.assertLess(abs(line["nll"] - reference["nll"]), tolerance, dtype)

    def test_keys_and_values_kept_in_8_bits_score_nearly_the_same(self):
        none, own = self.measure()
        for kept, least in (("bfloat16", 1e-9), ("int8", 1e-9), ("auto", 0)):
            without, found = self.measure("--kept-type", kept)
            self.assertEqual(without["nll"], none["nll"], kept)
            off = abs(found["nll"] - own["nll"])
            self.assertLess(off, 0.01 if least else 1e-12, kept)
            self.assertGreaterEqual(off, least, f"{kept}: not rounded")

    def test_controls_change_what_is_read_and_never_what_is_scored(self):
        none, own = self.measure()
        seen = {str(self.nlls(own))}
        for control in (("--context", "other"), ("--context", "other", "--other", "2"), ("--context", "shuffled"),
                        ("--skip-nearest", "90")):
            # Without context nothing is left that a control could change: other targets would show.
            without, controlled = self.measure(*control)
            self.assertEqual(self.nlls(without), self.nlls(none), control)
            self.assertEqual(self.nlls(controlled), self.nlls(self.measure(*control)[1]), control)
            seen.add(str(self.nlls(controlled)))
        self.assertEqual(len(seen), 5)

    def test_direct_tokens_are_the_window_made_longer(self):
        direct = self.measure("--direct-tokens", "100", contexts="0")
        # The same places: a window that is longer by as much needs as much less before it.
        longer = [*self.arguments(contexts="0", room="400")]
        longer[longer.index("--decoder-tokens") + 1] = "164"
        line = json.loads(self.succeed(*longer).out)
        for value, expected in zip(self.nlls(direct[0]), self.nlls(line), strict=True):
            self.assertAlmostEqual(value, expected, places=5)
        self.assertNotEqual(self.nlls(direct[0]), self.nlls(self.measure(contexts="0")[0]))

    def test_direct_tokens_beyond_rotary_positions_are_warned_of(self):
        config = json.loads((self.model / "config.json").read_text())
        few = self.root / "few-positions"
        few.mkdir()
        for file in self.model.iterdir():
            (few / file.name).write_bytes(file.read_bytes())
        (few / "config.json").write_text(json.dumps(config | {"max_position_embeddings": 100}))
        arguments = ["eval", "lm", "--model", few, "--adapter", "none", "--text", self.books, "--context-tokens", "0",
                     "--target-tokens", "16", "--json"]
        outcome = self.succeed(*arguments, "--decoder-tokens", "64", "--direct-tokens", "100")
        self.assertIn("164 tokens, and the decoder has 100 positions", outcome.err)
        self.refuse(["--decoder-tokens 164", "at most 100"], *arguments, "--decoder-tokens", "164")

    def test_counts_of_tokens_take_units(self):
        plain = self.measure(contexts="0", room="1024")
        self.assertEqual(self.nlls(self.measure(contexts="0", room="1K")[0]), self.nlls(plain[0]))
        arguments = [{"64": "0.0625K", "16": "0.015625K"}.get(argument, argument)
                     for argument in self.arguments("--direct-tokens", "0K", contexts="0", room="1k")]
        self.assertEqual(self.nlls(json.loads(self.succeed(*arguments, "--skip-nearest", "0K").out)), self.nlls(plain[0]))

    def test_impossible_controls_are_refused(self):
        self.refuse(["room 300", "at least 320"], *self.arguments(room="300"))
        self.refuse(["other 2"], *self.arguments("--other", "2"))
        self.refuse(["at least 5 documents"], *self.arguments("--context", "other", "--other", "4"))
        self.refuse(["--room", "'1,2'", "such as 2048 or 2K"], *self.arguments(room="1,2"))

    def test_one_text_given_twice_is_no_other_text(self):
        first = self.write("first.jsonl", self.books.read_text().splitlines()[0] + "\n")
        arguments = [first if argument == self.books else argument for argument in self.arguments("--context", "other")]
        self.refuse("all 2 documents long enough are the same text", *arguments, "--text", first)
        self.succeed(*arguments, "--text", self.books)

    def test_compare_pairs_documents_and_takes_the_mean_of_several_others(self):
        own = self.saved("own.jsonl")
        others = [self.saved(f"other-{n}.jsonl", "--context", "other", "--other", str(n)) for n in (1, 2)]
        compared = self.succeed("eval", "compare", own, *others, "--json").out.splitlines()
        lines = [json.loads(line) for line in compared]
        self.assertEqual([(line["context_tokens"], line["other_context_tokens"]) for line in lines],
                         [(0, 0), (320, 320)])
        self.assertEqual(set(lines[0]), {"context_tokens", "other_context_tokens", "documents", "unpaired",
                                         "difference", "stderr", "percent", "percent_stderr"})
        self.assertEqual(lines[0]["difference"], 0)
        a, b, c = (self.nlls(json.loads(file.read_text().splitlines()[1])) for file in (own, *others))
        differences = [(y + z) / 2 - x for x, y, z in zip(a, b, c, strict=True)]
        mean = sum(differences) / 4
        error = math.sqrt(sum((x - mean) ** 2 for x in differences) / 3 / 4)
        self.assertAlmostEqual(lines[1]["difference"], mean, places=12)
        self.assertAlmostEqual(lines[1]["stderr"], error, places=12)
        self.assertAlmostEqual(lines[1]["percent"], 100 * (math.exp(mean) - 1), places=9)
        self.assertAlmostEqual(lines[1]["percent_stderr"], 100 * math.exp(mean) * error, places=9)
        table = self.succeed("eval", "compare", own, *others).out.splitlines()
        self.assertEqual(len(table), 3)
        self.assertEqual(len({len(line) for line in table}), 1)

    def test_compare_refuses_runs_that_scored_other_places(self):
        own = self.saved("own-places.jsonl")
        self.succeed("eval", "compare", own, self.saved("same-places.jsonl", "--skip-nearest", "90"))
        other = self.saved("other-room.jsonl", room="501")
        self.refuse(["other-room.jsonl:1", "'book 3' has other target tokens than in", "own-places.jsonl:1", "--room"],
                    "eval", "compare", own, other)

    def test_compare_pairs_the_lengths_that_are_asked_for(self):
        own = self.saved("lengths.jsonl")
        line = json.loads(self.succeed("eval", "compare", own, own, "--lengths", "320:0", "--json").out)
        none, some = (json.loads(text)["nll"] for text in own.read_text().splitlines())
        self.assertAlmostEqual(line["difference"], none - some, places=12)
        self.assertEqual((line["context_tokens"], line["other_context_tokens"]), (320, 0))
        self.refuse(["--lengths", "lengths.jsonl", "999"], "eval", "compare", own, own, "--lengths", "0:999")
        self.refuse(["--lengths", "2K:8K"], "eval", "compare", own, own, "--lengths", "320")

    def test_compare_names_every_length_that_it_leaves_out(self):
        def results(name, *lengths):
            return self.write(name, "".join(json.dumps({"context_tokens": length, "by_document": [
                {"id": "a", "nll": 1.5, "tokens": 16}]}) + "\n" for length in lengths))

        outcome = self.succeed("eval", "compare", results("a.jsonl", 0, 8), results("b.jsonl", 0, 16))
        self.assertIn("a.jsonl:2: context_tokens 8 is not in all files", outcome.err)
        self.assertIn("b.jsonl:2: context_tokens 16 is not in all files", outcome.err)
        self.assertEqual(outcome.err.count("left out"), 2)

    def test_compare_names_file_and_line_of_what_it_cannot_read(self):
        line = {"context_tokens": 0, "by_document": [{"id": "a", "nll": 1.5, "tokens": 16}]}
        good = self.write("good.jsonl", json.dumps(line) + "\n")
        for bad, words in [
            ("{", "not valid JSON"), ("[]", "context_tokens"), (json.dumps({"context_tokens": 8}), "--by-document"),
            (json.dumps(line), "is also in"),
            (json.dumps({"context_tokens": 8, "by_document": [{"id": "a", "nll": 1.5}]}), "tokens"),
            (json.dumps({"context_tokens": 8, "by_document": [{"id": "a", "nll": 1e300, "tokens": 16}]}), "nll"),
        ]:
            file = self.write("bad.jsonl", json.dumps(line) + "\n\n" + bad + "\n")
            self.refuse(["bad.jsonl:3", words], "eval", "compare", good, file)
        twice = self.write("twice.jsonl", json.dumps(line | {"by_document": line["by_document"] * 2}) + "\n")
        self.refuse(["twice.jsonl:1", "'a' occurs twice"], "eval", "compare", twice, good)
        self.refuse("no results", "eval", "compare", good, self.write("empty.jsonl", ""))
        self.refuse("absent.jsonl", "eval", "compare", good, self.root / "absent.jsonl")
        apart = self.write("apart.jsonl", json.dumps(line | {"context_tokens": 8}) + "\n")
        self.refuse("--lengths", "eval", "compare", good, apart)


if __name__ == "__main__":
    unittest.main()
