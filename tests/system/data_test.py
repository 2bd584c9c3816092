"""cepe data: corpora made from documents, what they say of themselves, and work that is interrupted."""
import json
import os
import random
import shutil
import signal
import struct
import time
import unittest

import tiny_model
from program import ProgramTest


class Data(ProgramTest):
    def lines(self, *documents):
        return "".join(json.dumps(document) + "\n" for document in documents)

    def build(self, output, *texts, **options):
        return self.succeed("data", "build", "--model", self.model, "--output", self.root / output, "--text", *texts,
                            **options)

    def test_a_corpus_holds_the_documents_tokens_in_order(self):
        books = self.write("in/books_train-0.jsonl", self.lines({"text": "Grüße"}, {"text": "abc", "id": 7}))
        law = self.write("in/law.jsonl", self.lines({"text": "x" * 40, "domain": "statutes"}))
        folder = self.root / "corpus"
        self.assertEqual(self.build("corpus", books, law).out, f"{folder}\n")
        tokens = "Grüßeabc".encode() + b"x" * 40
        self.assertEqual((folder / "tokens-00000.bin").read_bytes(), struct.pack(f"<{len(tokens)}H", *tokens))
        documents = [json.loads(line) for line in (folder / "documents.jsonl").read_text().splitlines()]
        self.assertEqual([(d["id"], d["domain"], d["tokens"]) for d in documents],
                         [(f"{books}:1", "books_train", 7), ("7", "books_train", 3), (f"{law}:1", "statutes", 40)])
        info = json.loads(self.succeed("data", "info", folder, "--json").out)
        self.assertEqual((info["documents"], info["tokens"], info["bytes"], info["vocabulary"]),
                         (3, 50, 100, tiny_model.VOCABULARY))
        self.assertEqual(info["domains"],
                         [{"domain": "books_train", "documents": 2, "tokens": 10, "longest": 7},
                          {"domain": "statutes", "documents": 1, "tokens": 40, "longest": 40}])
        self.assertEqual([(length["from"], length["below"], length["documents"]) for length in info["lengths"]],
                         [(2, 4, 1), (4, 8, 1), (8, 16, 0), (16, 32, 0), (32, 64, 1)])
        text = self.succeed("data", "info", folder).out
        for word in ("3 documents", "50 tokens", "statutes", "32 to below 64"):
            self.assertIn(word, text)
        self.assertIn("all checksums agree", self.succeed("data", "verify", folder).out)
        self.assertTrue(json.loads(self.succeed("data", "verify", folder, "--json").out)["intact"])

    def test_damage_is_found_and_named(self):
        self.build("damaged", self.write("some.txt", "some text"))
        file = self.root / "damaged/tokens-00000.bin"
        file.write_bytes(b"t" + file.read_bytes()[1:])
        self.refuse(["tokens-00000.bin", "checksum"], "data", "verify", self.root / "damaged")
        self.refuse(["no corpus here", "cepe data build"], "data", "info", self.root)

    def test_bad_lines_are_an_error_until_they_may_be_passed_over(self):
        file = self.write("bad.jsonl", self.lines({"text": "one"}) + "{\n" + self.lines({"text": "two"}))
        arguments = ("data", "build", "--model", self.model, "--output", self.root / "bad", "--text", file)
        self.refuse("bad.jsonl, line 2", *arguments)
        outcome = self.succeed(*arguments, "--max-skipped", "1")
        self.assertIn("2 documents, 6 tokens; 1 documents were there before; 1 bad lines", outcome.err)
        self.assertIn("2 documents", self.succeed(*arguments).err)

    def test_another_corpus_in_the_folder_is_refused_by_what_differs(self):
        text = self.write("text.txt", "text")
        self.build("same", text)
        self.refuse("eos: was false, is true", "data", "build", "--model", self.model, "--eos", "--output",
                    self.root / "same", "--text", text)
        self.refuse("no BOS token", "data", "build", "--model", self.model, "--bos", "--output", self.root / "bos",
                    "--text", text)

    def test_inputs_without_text_are_refused_and_the_mended_ones_are_taken(self):
        text = self.write("blank.txt", "")
        arguments = ("data", "build", "--model", self.model, "--output", self.root / "blank", "--text", text)
        self.refuse(["blank: nothing to make a corpus of", "1 documents are empty"], *arguments)
        self.refuse("not finished", "data", "info", self.root / "blank")
        text.write_text("text")
        self.assertIn("1 documents, 4 tokens", self.succeed(*arguments).err)

    def test_a_corpus_may_lie_in_the_folder_of_its_texts(self):
        self.write("texts/a.jsonl", self.lines({"text": "one"}) + "{\n")
        arguments = ("data", "build", "--model", self.model, "--text", self.root / "texts", "--output",
                     f"{self.root}/texts/../texts/corpus/")
        self.refuse("a.jsonl, line 2", *arguments)
        for _ in range(2):
            self.assertIn("1 documents, 3 tokens", self.succeed(*arguments, "--max-skipped", "1").err)
        self.write("texts/corpus-2.txt", "another name that begins so")
        self.refuse("inputs: were 1, are 2", *arguments)

    def test_corpora_go_out_in_the_published_formats_and_come_back(self):
        text = self.write("book.jsonl", self.lines({"text": "abcdefghij"}, {"text": "xyz"}))
        self.build("own", text)
        own = self.root / "own"
        self.succeed("data", "export", own, "--npy", self.root / "own.npy")
        self.refuse("pass --force", "data", "export", own, "--npy", self.root / "own.npy")
        self.refuse("this is in the corpus", "data", "export", own, "--npy", f"{own}/corpus.json", "--force")
        (self.root / "inside.npy").symlink_to(own / "corpus.json")
        self.refuse("this is in the corpus", "data", "export", own, "--npy", self.root / "inside.npy", "--force")
        (self.root / "link.npy").symlink_to("target.npy")
        self.refuse("a symbolic link to target.npy", "data", "export", own, "--npy", self.root / "link.npy")
        self.write("target.npy", "old")
        self.succeed("data", "export", own, "--npy", self.root / "link.npy", "--force")
        self.assertEqual((self.root / "target.npy").read_bytes(), (self.root / "own.npy").read_bytes())
        self.assertTrue((self.root / "link.npy").is_symlink())
        os.mkfifo(self.root / "pipe.npy")
        self.refuse("pipe", "data", "export", own, "--npy", self.root / "pipe.npy", "--force")
        self.assertTrue((self.root / "pipe.npy").is_fifo())
        (self.root / "stream.npy").symlink_to("/dev/stdout")
        self.refuse("device", "data", "export", own, "--npy", self.root / "stream.npy", "--force")
        numbers = (self.root / "own.npy").read_bytes()[128:]
        self.assertEqual(struct.unpack(f"<{len(numbers) // 8}q", numbers), (2, 10, 3, *b"abcdefghijxyz"))
        self.succeed("data", "import", "--npy", self.root / "own.npy", "--model", self.model, "--output",
                     self.root / "back")
        self.assertEqual((self.root / "back/tokens-00000.bin").read_bytes(), (own / "tokens-00000.bin").read_bytes())
        for option in (("--zstd",), ("--tokens", "3"), ("--previous-tokens", "3")):
            self.refuse("requires --mds", "data", "export", own, "--npy", self.root / "other.npy", *option)
        self.succeed("data", "export", own, "--mds", self.root / "mds", "--tokens", "3", "--previous-tokens", "4", "--zstd")
        self.succeed("data", "import", "--mds", self.root / "mds", "--model", self.model, "--output", self.root / "samples")
        self.assertEqual((self.root / "samples/tokens-00000.bin").read_bytes()[::2], b"abcdefgdefghij")
        documents = (self.root / "samples/documents.jsonl").read_text().splitlines()
        self.assertEqual([json.loads(line)["domain"] for line in documents], ["book", "book"])
        self.refuse("not empty", "data", "export", own, "--mds", self.root / "mds")
        self.refuse("has only 10; ask for fewer", "data", "export", own, "--mds", self.root / "too-long")
        self.refuse("give one of", "data", "export", own)
        self.refuse("nothing to import", "data", "import", "--output", self.root / "none")

    def test_sizes_and_places_that_make_no_sense_are_refused_and_leave_nothing(self):
        text = self.write("short.txt", "text")
        self.build("short", text)
        for option in ("--tokens", "--previous-tokens"):
            self.refuse(option, "data", "export", self.root / "short", "--mds", self.root / "none", option, "-1")
        self.assertFalse((self.root / "none").exists())
        self.refuse("short.txt: is a file", "data", "build", "--model", self.model, "--output", text, "--text", text)
        self.refuse("--output: expected the name of a folder", "data", "build", "--model", self.model, "--output", "",
                    "--text", text)
        self.refuse("--output: expected the name of a folder", "data", "import", "--model", self.model, "--npy",
                    self.root / "none.npy", "--output", "")

    def test_a_file_that_is_named_twice_is_taken_once(self):
        text = self.write("twice/a.txt", "abc")
        self.write("twice/b.txt", "defg")
        (self.root / "twice/c.txt").symlink_to("b.txt")
        outcome = self.succeed("data", "build", "--model", self.model, "--output", self.root / "once", "--text", text,
                               self.root / "twice")
        self.assertIn("2 documents, 7 tokens", outcome.err)
        for name in ("a.txt", "c.txt"):
            self.assertIn(f"{self.root}/twice/{name}: is among the documents already", outcome.err)

    def test_names_of_domains_steer_no_terminal(self):
        text = self.write("domains.jsonl", self.lines({"text": "abc", "domain": "one\x1b[31m\ntwo"}))
        self.build("domains", text)
        self.assertIn("  one\\x1b[31m\\ntwo ", self.succeed("data", "info", self.root / "domains").out)

    def test_an_interrupted_build_goes_on_to_the_same_corpus(self):
        chance = random.Random(1)
        letters = "".join(chance.choices("abcdefgh ", k=20000))
        documents = self.write("long.jsonl", self.lines(*({"text": letters[i % 999:]} for i in range(3000))))
        started = time.monotonic()
        self.build("whole", documents)
        seconds = time.monotonic() - started
        arguments = ("data", "build", "--model", self.model, "--output", self.root / "parts", "--text", documents)
        interrupted = 0
        for part in (0.05, 0.4, 0.4):
            process = self.start(*arguments)
            while not (self.root / "parts/build.json").exists() and process.poll() is None:
                time.sleep(0.01)
            time.sleep(seconds * part)
            process.send_signal(signal.SIGINT)
            process.communicate(timeout=60)
            self.assertIn(process.returncode, (0, 130, -signal.SIGINT))
            interrupted += process.returncode == 130
        self.assertGreaterEqual(interrupted, 1)
        self.succeed(*arguments)
        for name in ("corpus.json", "documents.jsonl", "tokens-00000.bin"):
            self.assertEqual((self.root / "parts" / name).read_bytes(), (self.root / "whole" / name).read_bytes(), name)
        self.assertFalse((self.root / "parts/build.json").exists())
        shutil.rmtree(self.root / "whole")


if __name__ == "__main__":
    unittest.main()
