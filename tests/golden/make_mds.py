"""Makes tests/golden/formats/mds and tests/golden/formats/npy: small data sets by the published libraries, and the values
they must yield.

Run: python tests/golden/make_mds.py   (needs mosaicml-streaming==0.11.0 and numpy of PyPI)
"""
import json
import pathlib
import pickle
import shutil

import numpy
from streaming.base.format.mds.writer import MDSWriter

folder = pathlib.Path(__file__).parent / "formats"
random = numpy.random.default_rng(5)


def published(name, samples, **settings):
    """As CEPE's corpora are: pickled arrays and a domain."""
    columns = {"token_ids": "pkl", "prev_token_ids": "pkl", "domain": "str"}
    with MDSWriter(columns=columns, out=str(folder / "mds" / name), **settings) as writer:
        for sample in samples:
            writer.write(sample)


def lists(sample):
    return {key: value.tolist() if isinstance(value, numpy.ndarray) else value for key, value in sample.items()}


def make_mds():
    shutil.rmtree(folder / "mds", ignore_errors=True)
    samples = [
        {"token_ids": random.integers(0, 32000, 6).astype(type), "prev_token_ids": random.integers(0, 32000, 10).astype(type),
         "domain": domain}
        for type, domain in ((numpy.int64, "arxiv"), (numpy.int32, "book"), (numpy.uint16, "grüße"), (numpy.uint32, ""))
    ]
    published("plain", samples, hashes=["sha1", "xxh64"], size_limit=1200)
    published("zstd", samples, compression="zstd:7", hashes=["sha1", "xxh64"])
    columns = {"a": "ndarray", "b": "ndarray:int32", "c": "ndarray:uint8:2,3", "d": "int", "e": "bytes", "f": "str"}
    others = [
        {"a": random.integers(0 if type is numpy.uint64 else -9, 9, shape).astype(type), "b": random.integers(-9, 9, (3, 2)).astype(numpy.int32),
         "c": random.integers(0, 255, (2, 3)).astype(numpy.uint8), "d": -5, "e": b"ab", "f": "x"}
        for type, shape in ((numpy.int16, (2, 2)), (numpy.uint64, (300,)), (numpy.int8, (1,)))
    ]
    with MDSWriter(columns=columns, out=str(folder / "mds" / "encodings"), compression="zstd") as writer:
        for sample in others:
            writer.write(sample)
    for sample in others:
        sample["e"] = sample["e"].decode()
    expected = {"plain": samples, "zstd": samples, "encodings": others}
    text = json.dumps({name: [lists(sample) for sample in of] for name, of in expected.items()}, separators=(",", ":"))
    (folder / "mds" / "expected.json").write_text(text)


def make_pickles():
    """Protocols 3 to 5, as numpy 2 and (by the name of its module) numpy 1 write them."""
    array = numpy.array([[1, -2, 3], [4, 5, -600000]], numpy.int32)
    found = {}
    for protocol in (3, 4, 5):
        found[f"numpy2-protocol{protocol}"] = pickle.dumps(array, protocol=protocol)
    found["numpy1-protocol4"] = found["numpy2-protocol4"].replace(b"\x8c\x16numpy._core.multiarray",
                                                                  b"\x8c\x15numpy.core.multiarray")
    (folder / "mds" / "pickles.json").write_text(json.dumps({name: data.hex() for name, data in found.items()}))


def make_npy():
    shutil.rmtree(folder / "npy", ignore_errors=True)
    (folder / "npy").mkdir(parents=True)
    documents = [random.integers(0, 500, length).astype(numpy.int64) for length in (4, 1, 9)]
    data = numpy.concatenate([[len(documents)], [len(one) for one in documents], *documents])
    numpy.save(folder / "npy" / "documents-0.npy", data)
    numpy.save(folder / "npy" / "matrix.npy", numpy.arange(12, dtype=numpy.uint16).reshape(3, 4))
    with open(folder / "npy" / "version3.npy", "wb") as file:
        numpy.lib.format.write_array(file, numpy.array([1.5, -2.0], numpy.float32), version=(3, 0))
    (folder / "npy" / "documents.json").write_text(json.dumps([one.tolist() for one in documents]))


make_mds()
make_pickles()
make_npy()
