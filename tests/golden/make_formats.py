"""Makes tests/golden/formats: small checkpoint files by the published libraries, and the values they must yield.

Run: python tests/golden/make_formats.py   (needs gguf==0.19.0, numpy, safetensors, torch of PyPI)
Every x.gguf, x.bin, x-sharded/ has its tensors beside it in x.expected.safetensors.
"""
import io
import json
import pathlib
import shutil
import zipfile

import gguf
import numpy
import torch
from safetensors.numpy import save_file as save_numpy
from safetensors.torch import save_file as save_torch

folder = pathlib.Path(__file__).parent / "formats"
folder.mkdir(exist_ok=True)
random = numpy.random.default_rng(7)
Q = gguf.GGMLQuantizationType

QUANTISED = [Q.Q4_0, Q.Q4_1, Q.Q5_0, Q.Q5_1, Q.Q8_0, Q.Q2_K, Q.Q3_K, Q.Q4_K, Q.Q5_K, Q.Q6_K]
# Where each block keeps its 16-bit scales: any other bytes may be random, these must be finite numbers.
HALVES = {Q.Q4_0: [0], Q.Q4_1: [0, 2], Q.Q5_0: [0], Q.Q5_1: [0, 2], Q.Q8_0: [0], Q.Q2_K: [80, 82], Q.Q3_K: [108],
          Q.Q4_K: [0, 2], Q.Q5_K: [0, 2], Q.Q6_K: [208]}


def random_blocks(kind, rows, blocks):
    size = gguf.GGML_QUANT_SIZES[kind][1]
    raw = random.integers(0, 256, (rows * blocks, size), dtype=numpy.uint8)
    for at in HALVES[kind]:
        scales = (random.standard_normal(rows * blocks) * 0.1).astype(numpy.float16)
        scales[0] = numpy.float16(3e-6)  # a subnormal
        raw[:, at:at + 2] = scales.view(numpy.uint8).reshape(-1, 2)
    return raw.reshape(rows, blocks * size)


def gguf_file(name, alignment=None):
    writer = gguf.GGUFWriter(str(folder / name), "llama")
    if alignment:
        writer.add_custom_alignment(alignment)
    writer.add_uint32("test.uint32", 4000000000)
    writer.add_int64("test.int64", -5)
    writer.add_float32("test.float32", 0.5)
    writer.add_bool("test.bool", True)
    writer.add_string("test.string", "grüße")
    writer.add_array("test.strings", ["a", "", "▁b"])
    writer.add_array("test.numbers", [3, -1, 2])
    return writer


def finish(writer):
    writer.write_header_to_file()
    writer.write_kv_data_to_file()
    writer.write_tensors_to_file()
    writer.close()


def make_quantised():
    writer = gguf_file("blocks.gguf")
    expected = {}
    for kind in QUANTISED:
        values = gguf.GGML_QUANT_SIZES[kind][0]
        blocks = 256 // values
        raw = random_blocks(kind, 1, blocks)
        writer.add_tensor(kind.name, raw, raw_dtype=kind)
        expected[kind.name] = gguf.dequantize(raw, kind).astype(numpy.float32).reshape(1, 256)
    finish(writer)
    save_numpy(expected, folder / "blocks.expected.safetensors")


def make_plain():
    writer = gguf_file("plain.gguf", alignment=64)
    expected = {}
    for name, dtype in [("F32", numpy.float32), ("F16", numpy.float16), ("F64", numpy.float64), ("I8", numpy.int8),
                        ("I16", numpy.int16), ("I32", numpy.int32), ("I64", numpy.int64)]:
        array = (random.standard_normal((2, 3, 5)) * 50).astype(dtype)
        writer.add_tensor(name, array)
        expected[name] = array
    bits = (random.standard_normal((3, 7)).astype(numpy.float32).view(numpy.uint32) >> 16).astype(numpy.uint16)
    writer.add_tensor("BF16", bits.view(numpy.uint8), raw_dtype=Q.BF16)
    expected["BF16"] = (bits.astype(numpy.uint32) << 16).view(numpy.float32)
    finish(writer)
    save_numpy(expected, folder / "plain.expected.safetensors")


def torch_tensors():
    torch.manual_seed(3)
    base = torch.randn(6, 4)
    return {
        "plain": base,
        "transposed": base.t(),
        "slice": base[1:5:2, 1:3],
        "expanded": torch.randn(3, 1).expand(3, 4),
        "shared": base[2],
        "scalar": torch.tensor(2.5),
        "empty": torch.zeros(0, 3),
        "half": torch.randn(5).half(),
        "bfloat16": torch.randn(2, 2).bfloat16(),
        "float64": torch.randn(3, dtype=torch.float64),
        "int64": torch.tensor([1, -2, 3]),
        "int32": torch.arange(3, dtype=torch.int32),
        "int16": torch.arange(3, dtype=torch.int16),
        "int8": torch.arange(-2, 3, dtype=torch.int8),
        "uint8": torch.arange(3, dtype=torch.uint8),
        "boolean": torch.tensor([True, False, True]),
    }


def expect(name, tensors):
    save_torch({key: value.detach().contiguous().clone() for key, value in tensors.items()},
               folder / f"{name}.expected.safetensors")


def make_torch():
    tensors = torch_tensors()
    torch.save(tensors, folder / "views.bin")
    expect("views", tensors)

    module = torch.nn.Sequential(torch.nn.Linear(3, 2), torch.nn.LayerNorm(2))
    torch.save(module.state_dict(), folder / "module.bin")  # an OrderedDict with _metadata
    expect("module", module.state_dict())

    nested = {"epoch": 3, "lr": 1e-3, "seed": 2**70, "state_dict": dict(module.named_parameters())}  # Parameters
    torch.save(nested, folder / "nested.pt", pickle_protocol=4)
    expect("nested", nested["state_dict"])


def make_sharded():
    shards = folder / "sharded"
    shards.mkdir(exist_ok=True)
    tensors = {f"layer.{i}.weight": torch.randn(2, 3) for i in range(3)}
    files = {f"pytorch_model-0000{i + 1}-of-00002.bin": part for i, part in
             enumerate([{k: tensors[k] for k in list(tensors)[:2]}, {k: tensors[k] for k in list(tensors)[2:]}])}
    weight_map = {}
    for file, part in files.items():
        torch.save(part, shards / file)
        weight_map.update({key: file for key in part})
    index = {"metadata": {"total_size": 72}, "weight_map": weight_map}
    (shards / "pytorch_model.bin.index.json").write_text(json.dumps(index, indent=2) + "\n")
    expect("sharded", tensors)


def make_refused():
    refused = folder / "refused"
    refused.mkdir(exist_ok=True)
    torch.save({"w": torch.zeros(2)}, refused / "legacy.bin", _use_new_zipfile_serialization=False)
    torch.save(torch.nn.Linear(1, 1), refused / "module.bin")  # a whole object: names foreign classes


def make_seeds():
    """tests/fuzz/<target>: small well-formed files to start from."""
    fuzz = folder.parent.parent / "fuzz"
    for target in ["safetensors_fuzz", "gguf_fuzz", "torch_bin_fuzz"]:
        (fuzz / target).mkdir(parents=True, exist_ok=True)
    for name in ["module", "plain"]:
        shutil.copyfile(folder / f"{name}.expected.safetensors", fuzz / "safetensors_fuzz" / f"{name}.safetensors")
    for name in ["plain", "blocks"]:
        shutil.copyfile(folder / f"{name}.gguf", fuzz / "gguf_fuzz" / f"{name}.gguf")
    archive = zipfile.ZipFile(folder / "module.bin")
    with zipfile.ZipFile(fuzz / "torch_bin_fuzz" / "deflated.bin", "w", zipfile.ZIP_DEFLATED) as packed:
        for entry in archive.namelist():
            if not entry.rpartition("/")[2].startswith("."):
                packed.writestr(entry, archive.read(entry))
    shutil.copyfile(folder / "module.bin", fuzz / "torch_bin_fuzz" / "module.bin")
    tensor = torch.zeros(2, 2)
    for protocol in [2, 4]:
        buffer = io.BytesIO()
        torch.save({"a": tensor, "b": tensor.t()[:1]}, buffer, pickle_protocol=protocol)
        with zipfile.ZipFile(buffer) as saved:
            (fuzz / "torch_bin_fuzz" / f"protocol{protocol}.pkl").write_bytes(saved.read("archive/data.pkl"))


make_quantised()
make_plain()
make_torch()
make_sharded()
make_refused()
make_seeds()
