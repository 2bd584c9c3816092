"""cepe chat on a terminal: Ctrl-C stops an answer, and ends the program at the prompt."""
import json
import os
import re
import signal
import time
import unittest

from program import ProgramTest


class OnATerminal(ProgramTest):
    def setUp(self):
        self.keyboard, self.terminal = os.openpty()
        self.addCleanup(os.close, self.keyboard)

    def chat(self, *arguments):
        process = self.start("chat", "--model", self.model, "--max-tokens", "1500", "--verbose", *arguments,
                             stdin=self.terminal)
        os.close(self.terminal)
        self.addCleanup(process.kill)
        return process

    def say(self, line):
        os.write(self.keyboard, line.encode() + b"\n")

    def read_errors_until(self, process, pattern):
        text = b""
        while not re.search(pattern, text):
            line = process.stderr.readline()
            self.assertNotEqual(line, b"", text)
            text += line
        return re.search(pattern, text)

    def end_with(self, process, code):
        _, err = process.communicate(timeout=60)
        self.assertEqual(process.returncode, code, err)
        self.assertNotIn(b"error", err)

    def decoder_tokens(self, process):
        return int(self.read_errors_until(process, rb"context \+ (\d+) decoder tokens").group(1))

    def test_an_answer_that_was_stopped_stays_as_what_was_said_and_the_conversation_goes_on(self):
        alone = self.succeed("chat", "--model", self.model, "--max-tokens", "2", "--verbose", stdin="hello\n").err
        alone = int(re.search(r"context \+ (\d+) decoder tokens", alone).group(1))
        process = self.chat()
        self.say("hello")
        said = process.stdout.read(60)
        process.send_signal(signal.SIGINT)
        self.read_errors_until(process, rb"the answer stopped here")
        self.say("hello")
        self.assertGreater(self.decoder_tokens(process), 2 * alone + len(said))
        self.say("/quit")
        self.end_with(process, 0)

    def test_a_message_without_a_word_of_answer_is_forgotten(self):
        book = self.write("long.txt", "".join(f"{i} bottles of beer on the wall. " for i in range(200000)))
        process = self.chat("--adapter", self.adapter, "--document", book)
        self.say("hello")
        chunks = lambda: json.loads(self.succeed("store", "ls", "--json").out)["chunks"]
        end = time.monotonic() + 60
        while chunks() == 0 and process.poll() is None and time.monotonic() < end:
            time.sleep(0.05)
        process.send_signal(signal.SIGINT)
        self.read_errors_until(process, rb"the message is forgotten")
        self.say("/quit")
        self.end_with(process, 0)

    def test_at_the_prompt_it_ends_the_program(self):
        process = self.chat()
        self.read_errors_until(process, rb"/new begins")
        process.send_signal(signal.SIGINT)
        self.end_with(process, 130)

    def test_a_request_to_end_is_obeyed_during_an_answer(self):
        process = self.chat()
        self.say("hello")
        process.stdout.read(1)
        process.send_signal(signal.SIGTERM)
        self.end_with(process, 130)

    def test_its_help_says_so(self):
        self.assertIn("Ctrl-C stops an answer", self.succeed("chat", "--help").out)

    def test_without_a_terminal_it_ends_the_program(self):
        read, write = os.pipe()
        self.addCleanup(os.close, write)
        os.write(write, b"hello\nhello\n")
        process = self.start("chat", "--model", self.model, "--max-tokens", "1500", stdin=read)
        os.close(read)
        process.stdout.read(1)
        process.send_signal(signal.SIGINT)
        self.end_with(process, 130)


if __name__ == "__main__":
    unittest.main()
