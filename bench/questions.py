#!/usr/bin/env python3
"""Answers to questions about passages, read in different ways: by the encoder with one adapter or another, by the
decoder itself in its prompt, or not at all. Prints a Markdown table: the share of answers that contain a right one
(lower case, without articles and punctuation), the mean F1 of words with the best of them, and seconds a question.

Questions: JSON Lines (.zst too) with `question`, `answers` and `ctxs` (each with `title` and `text`, best first).
Everything is greedy, at most 32 tokens, in the model's chat template.

  bench/questions.py --questions odqa_xquad.jsonl.zst --adapter models/smollm2-135m-instruct-cepe --count 100"""

import argparse
import collections
import json
import pathlib
import re
import string
import subprocess
import sys
import tempfile
import time

REPOSITORY = pathlib.Path(__file__).resolve().parent.parent


def read_text(path):
    if not path.endswith(".zst"):
        return pathlib.Path(path).read_text(encoding="utf-8")
    unpacked = subprocess.run(["zstd", "-dcq", path], capture_output=True)
    if unpacked.returncode != 0:
        sys.exit(f"{path}: {unpacked.stderr.decode(errors='replace').strip()}")
    return unpacked.stdout.decode()


def read_questions(path, count):
    rows = []
    try:
        lines = [line for line in enumerate(read_text(path).split("\n"), 1) if line[1].strip()]
    except (OSError, UnicodeDecodeError) as error:
        sys.exit(f"{getattr(error, 'filename', None) or path}: {getattr(error, 'strerror', None) or 'not UTF-8 text'}")
    for number, line in lines[:count]:
        try:
            row = json.loads(line)
            rows.append((row["question"], row["answers"], [f"{p['title']}: {p['text']}" for p in row["ctxs"]]))
        except (ValueError, KeyError, TypeError) as error:
            sys.exit(f"{path}:{number}: expected an object of 'question', 'answers' and 'ctxs' ({error})")
    if not rows:
        sys.exit(f"{path}: no questions in it")
    return rows


def words(text):
    """SQuAD's normalisation."""
    kept = "".join(c for c in text.lower() if c not in set(string.punctuation))
    return re.sub(r"\b(a|an|the)\b", " ", kept).split()


def contains(answer, right):
    return f" {' '.join(words(right))} " in f" {' '.join(words(answer))} "


def f1(answer, right):
    given, wanted = words(answer), words(right)
    common = sum((collections.Counter(given) & collections.Counter(wanted)).values())
    return 0 if common == 0 else 2 * common / (len(given) + len(wanted))


def ask(options, question, passages, way, folder):
    """The program's answer. way: none, direct, or an adapter's folder."""
    prompt = f"{question}\nAnswer in a few words."
    command = [options.program, "generate", "--chat", "--json", "--quiet", "--no-cache", "--max-tokens", "32",
               "--threads", str(options.threads), "--device", options.device]
    if way == "direct":
        prompt = "\n\n".join(passages) + f"\n\n{prompt}"
    elif way != "none":
        command += ["--adapter", way]
        for i, passage in enumerate(passages):
            file = pathlib.Path(folder, f"{i}.txt")
            file.write_text(passage, encoding="utf-8")
            command += ["--document", str(file)]
    run = subprocess.run(command + ["--prompt", prompt], capture_output=True, text=True)
    if run.returncode != 0:
        sys.exit(f"{' '.join(command)}: {run.stderr.strip()}")
    return json.loads(run.stdout)["text"]


def natural(text):
    number = int(text)
    if number < 1:
        raise ValueError
    return number


def parse_arguments():
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--questions", required=True, help="JSON Lines, may be packed with zstd")
    parser.add_argument("--adapter", action="append", default=[], help="folder; may be given again")
    parser.add_argument("--no-baselines", action="store_true", help="the adapters alone")
    parser.add_argument("--count", type=natural, default=100, help="the first so many questions [100]")
    parser.add_argument("--passages", type=natural, default=5, help="the best so many of each [5]")
    parser.add_argument("--threads", type=natural, default=2, help="[2]")
    parser.add_argument("--device", default="cpu", help="as the program's --device [cpu]")
    parser.add_argument("--program", default=str(REPOSITORY / "build/release/bin/cepe"), help="[the one built here]")
    options = parser.parse_args()
    if not pathlib.Path(options.program).is_file():
        parser.error(f"{options.program}: there is no such program; scripts/build makes it, --program names another")
    if options.no_baselines and not options.adapter:
        parser.error("--no-baselines leaves the adapters alone; give one with --adapter")
    for folder in options.adapter:
        if not pathlib.Path(folder).is_dir():
            parser.error(f"--adapter {folder}: there is no such folder")
    return options


def main():
    options = parse_arguments()
    rows = read_questions(options.questions, options.count)
    print("| passages read by | answers that contain a right one | F1 | seconds a question |\n|---|---|---|---|")
    for way in [*([] if options.no_baselines else ["none", "direct"]), *options.adapter]:
        right, score, start = 0, 0, time.monotonic()
        with tempfile.TemporaryDirectory() as folder:
            for question, answers, passages in rows:
                answer = ask(options, question, passages[:options.passages], way, folder)
                right += any(contains(answer, one) for one in answers)
                score += max((f1(answer, one) for one in answers), default=0)
        name = {"none": "nobody", "direct": "the decoder"}.get(way, f"the encoder, {pathlib.Path(way).name}")
        share = right / len(rows)
        error = (share * (1 - share) / len(rows)) ** 0.5
        print(f"| {name} | {100 * share:.1f} +- {100 * error:.1f} % | {score / len(rows):.3f} | "
              f"{(time.monotonic() - start) / len(rows):.2f} |", flush=True)


if __name__ == "__main__":
    main()
