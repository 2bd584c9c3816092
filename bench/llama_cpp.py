#!/usr/bin/env python3
"""Answering over a long document on a CPU: llama.cpp, whose decoder reads the document itself, beside this program,
whose encoder reads it. Same weights (a GGUF file), same text, same threads, one after the other. Prints a Markdown
table.

llama.cpp comes from PyPI's llama-cpp-python, compiled here into a virtual environment in the cache folder when it is
missing (a C++ compiler is needed; minutes to half an hour).

How: the document's first N tokens, a prompt of the 32 that follow, 64 greedy tokens. The time to the first token counts
tokenising, reading (encoding) the document and the prompt; loading the model is left out on both sides. llama.cpp runs
with flash attention off and on, and the better figure counts each time. Batches of 512, keys and values in float16,
no end of sequence. Peak memory is the process's, less what Python took before the model was opened. This program
starts anew for each run: first without any chunk on disk, then with those of an earlier run there.

  bench/llama_cpp.py --model M.gguf --adapter FOLDER --document books/tristram-shandy.txt --tokens 128,2048,8192"""

import argparse
import ctypes
import json
import os
import pathlib
import resource
import shutil
import statistics
import subprocess
import sys
import tempfile
import time
import venv

VERSION = "0.3.36"
REQUIREMENTS = [f"llama-cpp-python=={VERSION}", "numpy==2.4.6", "diskcache==5.6.3", "typing-extensions==4.16.0",
                "jinja2==3.1.6"]
# native: whatever this processor has. avx512: named sets, for compilers or virtual machines that misjudge it.
BUILDS = {"native": "-DGGML_NATIVE=ON",
          "avx512": "-DGGML_NATIVE=OFF -DGGML_AVX512=ON -DGGML_AVX512_VBMI=ON -DGGML_AVX512_VNNI=ON "
                    "-DGGML_AVX512_BF16=ON"}
PROMPT_TOKENS, ANSWER_TOKENS, BATCH = 32, 64, 512
REPOSITORY = pathlib.Path(__file__).resolve().parent.parent


# ---- llama.cpp, in a process of its own (`llama_cpp.py --worker JSON`, run by the Python that has it) ----------------

def peak_bytes():
    return resource.getrusage(resource.RUSAGE_SELF).ru_maxrss * 1024


def tokenize(llama, vocabulary, text, special):
    room = (llama.llama_token * (len(text) + 8))()
    count = llama.llama_tokenize(vocabulary, text, len(text), room, len(room), special, False)
    if count < 0:
        raise RuntimeError(f"llama_tokenize: {count}")
    return list(room[:count])


def decode(llama, context, ids):
    for start in range(0, len(ids), BATCH):
        part = (llama.llama_token * min(BATCH, len(ids) - start))(*ids[start:start + BATCH])
        result = llama.llama_decode(context, llama.llama_batch_get_one(part, len(part)))
        if result != 0:
            raise RuntimeError(f"llama_decode: {result} at token {start} of {len(ids)}")


def answer(llama, context, sampler, vocabulary, document, prompt):
    """One run: tokens of the input, seconds to the first token, tokens/s of those after it."""
    llama.llama_memory_clear(llama.llama_get_memory(context), True)
    start = time.perf_counter()
    ids = tokenize(llama, vocabulary, document, True) + tokenize(llama, vocabulary, prompt, False)
    decode(llama, context, ids)
    token = llama.llama_sampler_sample(sampler, context, -1)
    first = time.perf_counter()
    for _ in range(ANSWER_TOKENS - 1):
        decode(llama, context, [token])
        token = llama.llama_sampler_sample(sampler, context, -1)
    rate = (ANSWER_TOKENS - 1) / (time.perf_counter() - first)
    return {"input_tokens": len(ids), "first_token_seconds": first - start, "tokens_per_second": rate}


def work(job):
    sys.path.pop(0)  # this file's folder, where its own name would hide the package
    import llama_cpp as llama
    silent = llama.llama_log_callback(lambda level, text, data: None)
    llama.llama_log_set(silent, ctypes.c_void_p(0))
    llama.llama_backend_init()
    before = peak_bytes()
    document, prompt = pathlib.Path(job["document"]).read_bytes(), pathlib.Path(job["prompt"]).read_bytes()
    settings = llama.llama_model_default_params()
    settings.n_gpu_layers = 0
    model = llama.llama_model_load_from_file(job["model"].encode(), settings)
    if not model:
        raise SystemExit(f"{job['model']}: llama.cpp cannot load it")
    vocabulary = llama.llama_model_get_vocab(model)
    tokens = len(tokenize(llama, vocabulary, document, True)) + len(tokenize(llama, vocabulary, prompt, False))
    settings = llama.llama_context_default_params()
    settings.n_ctx = tokens + ANSWER_TOKENS
    settings.n_batch = settings.n_ubatch = BATCH
    settings.n_threads = settings.n_threads_batch = job["threads"]
    settings.flash_attn_type = int(job["flash"])
    context = llama.llama_init_from_model(model, settings)
    if not context:
        raise SystemExit(f"llama.cpp makes no context of {settings.n_ctx} tokens")
    sampler = llama.llama_sampler_init_greedy()
    decode(llama, context, tokenize(llama, vocabulary, b"A", True))  # the first pass reads the weights from disk
    runs = [answer(llama, context, sampler, vocabulary, document, prompt) for _ in range(job["runs"])]
    print(json.dumps({"runs": runs, "peak_memory_bytes": peak_bytes() - before,
                      "system": llama.llama_print_system_info().decode()}))


# ---- Both sides, as the table needs them -----------------------------------------------------------------------------

def llama_python(build, cache):
    """The Python of a virtual environment with llama-cpp-python, made where it is missing."""
    folder = cache / f"llama-cpp-python-{VERSION}-{build}"
    if not (folder / "complete").exists():
        print(f"compiling llama-cpp-python {VERSION} ({build}) into {folder}: minutes to half an hour", file=sys.stderr)
        shutil.rmtree(folder, ignore_errors=True)
        venv.create(folder, with_pip=True)
        # No wheel from elsewhere: it may have been compiled for another processor. LLAVA is its part for images.
        pip = subprocess.run([folder / "bin/python", "-m", "pip", "install", "--quiet", "--no-cache-dir",
                              "--no-binary", "llama-cpp-python", *REQUIREMENTS], stdout=sys.stderr,
                             env=os.environ | {"CMAKE_ARGS": BUILDS[build] + " -DLLAVA_BUILD=OFF"})
        if pip.returncode != 0:
            raise SystemExit(f"llama-cpp-python {VERSION} could not be installed into {folder}; pip says why above")
        (folder / "complete").touch()
    return folder / "bin/python"


def output_of(command):
    done = subprocess.run([str(part) for part in command], capture_output=True, text=True, stdin=subprocess.DEVNULL)
    if done.returncode != 0:
        raise SystemExit(f"{command[0]} failed ({done.returncode}):\n{done.stderr.strip()}")
    return json.loads(done.stdout)


def median(runs, name):
    return statistics.median(run[name] for run in runs)


def measure_llama(python, options, document, prompt, runs):
    """The better of flash attention off and on, figure by figure."""
    found = []
    for flash in (False, True):
        job = {"model": str(options.model), "document": str(document), "prompt": str(prompt), "flash": flash,
               "runs": runs, "threads": options.threads}
        result = output_of([python, pathlib.Path(__file__).resolve(), "--worker", json.dumps(job)])
        found.append({"first": median(result["runs"], "first_token_seconds"),
                      "input": result["runs"][0]["input_tokens"],
                      "rate": median(result["runs"], "tokens_per_second"), "memory": result["peak_memory_bytes"],
                      "system": result["system"]})
        print(f"  llama.cpp, flash attention {'on' if flash else 'off'}: {found[-1]['first']:.2f} s, "
              f"{found[-1]['rate']:.1f} tokens/s, {found[-1]['memory'] / 2**20:.0f} MiB", file=sys.stderr)
    return {"first": min(one["first"] for one in found), "rate": max(one["rate"] for one in found),
            "memory": min(one["memory"] for one in found), "input": found[0]["input"], "system": found[0]["system"]}


def measure_cepe(options, document, prompt, runs, chunks):
    """chunks: a folder to keep encoded chunks in, or None to encode in every run."""
    command = [options.program, "generate", "--quiet", "--json", "--model", options.model, "--adapter", options.adapter,
               "--document", document, "--prompt-file", prompt, "--max-tokens", ANSWER_TOKENS,
               "--threads", options.threads] + (["--no-cache"] if chunks is None else ["--cache-dir", chunks])
    if chunks is not None:
        output_of(command)  # fills the folder
    results = [output_of(command) for _ in range(runs)]
    if chunks is not None and results[0]["chunks"]["encoded"] != 0:
        raise SystemExit(f"{results[0]['chunks']['encoded']} chunks were not found on disk")
    timings = [result["timing"] for result in results]
    usage = results[0]["usage"]
    found = {"first": median(timings, "first_token_seconds"), "rate": median(timings, "tokens_per_second"),
             "memory": statistics.median(result["peak_memory_bytes"] for result in results),
             "input": usage["context_tokens"] + usage["decoder_tokens"], "answer": usage["generated_tokens"]}
    print(f"  cepe, {'chunks encoded' if chunks is None else 'chunks on disk'}: {found['first']:.2f} s, "
          f"{found['rate']:.1f} tokens/s, {found['memory'] / 2**20:.0f} MiB", file=sys.stderr)
    return found


def cut(options, ids, path):
    text = subprocess.run([options.program, "tokenize", "--decode", "--model", options.model], check=True,
                          input=" ".join(map(str, ids)).encode(), stdout=subprocess.PIPE).stdout
    path.write_bytes(text.removesuffix(b"\n"))
    return path


def measure(options, python):
    """tokens -> figures of llama.cpp, of cepe and of cepe with its chunks on disk."""
    ids = output_of([options.program, "tokenize", "--json", "--model", options.model, "--file",
                     options.document])["ids"]
    if len(ids) < max(options.tokens) + PROMPT_TOKENS:
        raise SystemExit(f"--tokens {max(options.tokens)}: {options.document} has only {len(ids)} tokens")
    found = {}
    with tempfile.TemporaryDirectory(prefix="cepe-bench-") as name:
        folder = pathlib.Path(name)
        for tokens in options.tokens:
            longest = len(options.tokens) > 1 and tokens == max(options.tokens)
            runs = options.runs or (1 if longest else 3)
            print(f"{tokens} tokens, {runs} run{'s' if runs > 1 else ''}:", file=sys.stderr)
            document = cut(options, ids[:tokens], folder / "document.txt")
            prompt = cut(options, ids[tokens:tokens + PROMPT_TOKENS], folder / "prompt.txt")
            found[tokens] = (measure_llama(python, options, document, prompt, runs),
                             measure_cepe(options, document, prompt, runs, None),
                             measure_cepe(options, document, prompt, runs, folder / f"chunks-{tokens}"))
    return found


def table(found):
    print("| document, tokens | first token, s: llama.cpp | cepe | ratio | cepe, chunks on disk | ratio "
          "| tokens/s: llama.cpp | cepe | ratio | peak MiB: llama.cpp | cepe | ratio |")
    print("|" + "---|" * 12)
    for tokens, (llama, encoded, kept) in found.items():
        rate = max(encoded["rate"], kept["rate"])  # the same work: the better one, as on the other side
        print(f"| {tokens} | {llama['first']:.2f} | {encoded['first']:.2f} | {llama['first'] / encoded['first']:.2f} "
              f"| {kept['first']:.2f} | {llama['first'] / kept['first']:.2f} "
              f"| {llama['rate']:.1f} | {rate:.1f} | {rate / llama['rate']:.2f} "
              f"| {llama['memory'] / 2**20:.0f} | {encoded['memory'] / 2**20:.0f} "
              f"| {llama['memory'] / encoded['memory']:.2f} |")
    print("\nRatios above 1: cepe is better.")


def notes(options, found):
    """What a reader must know who compares the figures."""
    for tokens, (llama, encoded, _) in found.items():
        if llama["input"] != encoded["input"]:
            print(f"- {tokens}: llama.cpp read {llama['input']} tokens in all, cepe {encoded['input']}")
        if encoded["answer"] != ANSWER_TOKENS:
            print(f"- {tokens}: cepe's answer ended after {encoded['answer']} of {ANSWER_TOKENS} tokens")
    system = next(iter(found.values()))[0]["system"]
    print(f"- {options.threads} threads; llama-cpp-python {VERSION} ({options.build}): {system.strip()}")


def counts(text):
    return [int(part) for part in text.split(",")]


def parse_arguments():
    variables = os.environ
    cache = variables.get("CEPE_CACHE_DIR") or pathlib.Path(variables.get("XDG_CACHE_HOME") or "~/.cache", "cepe")
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--model", type=pathlib.Path, required=True, help="a GGUF file")
    parser.add_argument("--adapter", required=True, help="trained adapter of that model")
    parser.add_argument("--document", type=pathlib.Path, required=True, help="a text of enough tokens")
    parser.add_argument("--tokens", type=counts,
                        default=[128, 2048, 8192, 16384], help="document lengths [128,2048,8192,16384]")
    parser.add_argument("--threads", type=int, default=os.cpu_count(), help="[all]")
    parser.add_argument("--runs", type=int, default=0, help="medians of so many [3; of the longest document 1]")
    parser.add_argument("--program", type=pathlib.Path, default=REPOSITORY / "build/release/bin/cepe")
    parser.add_argument("--build", choices=BUILDS, default="native", help="how llama.cpp is compiled [native]")
    parser.add_argument("--llama-python", type=pathlib.Path, help="a Python that has llama_cpp; none is compiled")
    parser.add_argument("--cache-dir", type=pathlib.Path, default=cache,
                        help="where it is compiled into [~/.cache/cepe]")
    options = parser.parse_args()
    for path in (options.model, options.document, options.program, options.llama_python):
        if path and not path.is_file():
            parser.error(f"{path}: there is no such file")
    if not os.path.isdir(options.adapter):
        parser.error(f"--adapter {options.adapter}: there is no such folder")
    if min(options.tokens) < 1 or options.threads < 1 or options.runs < 0:
        parser.error("--tokens, --threads and --runs are positive numbers")
    return options


def main():
    if sys.argv[1:2] == ["--worker"]:
        work(json.loads(sys.argv[2]))
        return
    options = parse_arguments()
    python = options.llama_python or llama_python(options.build, options.cache_dir.expanduser().resolve())
    found = measure(options, python)
    table(found)
    notes(options, found)


if __name__ == "__main__":
    main()
