// Where tensors live and products are made: the CPU, or a GPU whose libraries are loaded only when one is asked for.
#pragma once

#include <c10/core/Device.h>

#include <cstdint>
#include <exception>
#include <optional>
#include <string_view>

namespace cepe::ops {

// "cpu"; "cuda" (the first GPU) or "cuda:N"; "auto": the first GPU where there is one that works, else the CPU (a GPU
// that is there and does not work is warned of). For a GPU, loads libcepe_cuda.so and LibTorch's CUDA part the first
// time, and keeps float32 products in float32 (no TF32). Call it before anything else that may ask LibTorch for CUDA
// (at::manual_seed does): LibTorch remembers the answer. Thread-safe.
// Errors, each saying what is missing: invalid_argument (a name of none of these forms), not_found (this build has no
// CUDA part), unsupported (no GPU, no driver, a driver too old, a library that does not load, no GPU of that number,
// one without machine code in the library beside one that has it: kernels are for all GPUs of a process or for none).
at::Device open_device(std::string_view name);
// Whether a name has one of these forms; no device is opened. Errors: invalid_argument.
void check_device_name(std::string_view name);

// Ten times the first number of an opened GPU's compute capability and the second: 80 for sm_80. 0 for the CPU.
int compute_capability(at::Device device);

// Whether a GPU has been opened in this process.
bool cuda_is_open();

// Waits until everything asked of an opened device is done: before a clock is read, since a GPU works on while its
// caller goes ahead. Nothing to wait for on the CPU.
void synchronise(at::Device device);

// Most bytes that LibTorch held of an opened GPU's memory at one time in this process: tensors and what it keeps to
// give out again, as other programs on that GPU see it, without CUDA's own (code, cuBLAS handles). Nothing for the CPU,
// whose tensors are in base::peak_resident_bytes.
std::optional<int64_t> peak_device_bytes(at::Device device);
// Gives back what LibTorch keeps unused of a GPU's memory and counts the peak anew from what is in use. Nothing on the
// CPU.
void reset_peak_device_bytes(at::Device device);

// Bytes that new tensors can take on a device: what is free on an opened GPU and what LibTorch keeps unused of it; on
// the CPU base::available_bytes.
int64_t available_bytes(at::Device device);
// Whether this says that there was no memory. Of LibTorch's exceptions only those of its allocators on a GPU have a
// type of their own.
bool is_out_of_memory(const std::exception& error);

}  // namespace cepe::ops
