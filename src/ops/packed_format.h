// The formats of a packed weight; no tensors, so that the CUDA kernels see it too.
#pragma once

namespace cepe::ops {

enum class PackedFormat {
  q4_0,      // GGUF: 32 values = float16 d, 16 bytes of nibbles (i low, i + 16 high): (q - 8) * d
  q4_1,      // GGUF: float16 d, float16 m, 16 bytes: q * d + m
  q8_0,      // GGUF: float16 d, 32 int8: q * d
  int8_row,  // int8 [out, in], float32 scale a row
  fp8_row,   // float8 e4m3 [out, in], float32 scale a row
};

}  // namespace cepe::ops
