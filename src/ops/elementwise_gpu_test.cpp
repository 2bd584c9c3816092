// The fused CUDA kernels against the compositions they stand in for, computed on the CPU and on the GPU. Odd sizes,
// sizes that are no multiple of a 16-byte load, rows that do not begin on one.
#include <ATen/Context.h>
#include <ATen/TensorOperators.h>
#include <ATen/core/grad_mode.h>
#include <ATen/ops/full.h>
#include <ATen/ops/ones.h>
#include <ATen/ops/rand.h>
#include <ATen/ops/randn.h>
#include <ATen/ops/randperm.h>
#include <ATen/ops/tensor.h>

#include <array>
#include <cmath>
#include <limits>
#include <utility>
#include <vector>

#include "composed_ops.h"
#include "gpu.h"
#include "ops/activation.h"
#include "ops/cuda/loaded.h"
#include "ops/int8_rows.h"
#include "ops/norm.h"
#include "ops/rotary.h"

namespace cepe::ops {
namespace {

const std::vector<at::ScalarType> types = {at::kFloat, at::kBFloat16};
constexpr std::array activations = {Activation::silu, Activation::gelu, Activation::gelu_tanh, Activation::relu};

double distance(const at::Tensor& a, const at::Tensor& b) {
  const at::Tensor wide = b.detach().to(at::kCPU, at::kDouble);
  return ((a.detach().to(at::kCPU, at::kDouble) - wide).abs().max() / wide.abs().max().clamp_min(1e-30)).item<double>();
}

// A unit in the last place of bfloat16, where the float32 value lies on a rounding boundary.
double tolerance(const at::Tensor& x) { return x.scalar_type() == at::kFloat ? 1e-6 : 2e-2; }

class ElementwiseOnGpu : public test::OnGpu {
 protected:
  void SetUp() override {
    OnGpu::SetUp();
    if (test::gpu().device) at::manual_seed(11);
  }

  // operation(x on the GPU) against composition(x on the CPU), and against the composition on the GPU, from which
  // nearly every bfloat16 must not differ at all.
  template <class Operation, class Composition>
  void expect_composition(const at::Tensor& x, const Operation& operation, const Composition& composition,
                          float same_share = 0.97f) {
    SCOPED_TRACE(c10::str(x.sizes(), " ", x.scalar_type()));
    const at::Tensor expected = composition(x);
    const at::Tensor y = operation(x.to(device()));
    ASSERT_EQ(y.device(), device());
    ASSERT_EQ(y.sizes(), expected.sizes());
    ASSERT_EQ(y.scalar_type(), expected.scalar_type());
    EXPECT_FALSE(y.requires_grad());
    EXPECT_LE(distance(y, expected), tolerance(x));
    const at::Tensor composed = composition(x.to(device()));
    EXPECT_LE(distance(y, composed), tolerance(x));
    if (x.scalar_type() != at::kBFloat16 || x.numel() < 1000) return;
    EXPECT_GE((y == composed).to(at::kFloat).mean().item<float>(), same_share) << "the roundings stand at other places";
  }
};

TEST_F(ElementwiseOnGpu, TheKernelsAreLoaded) { EXPECT_NE(cuda::kernels(), nullptr) << "no machine code for this GPU"; }

TEST_F(ElementwiseOnGpu, RmsNormIsItsComposition) {
  for (const at::ScalarType type : types) {
    for (const int64_t width : {1, 2, 7, 33, 64, 100, 576, 1000, 1023, 4096, 8192, 8193, 16383, 16384, 16385, 32768}) {
      const at::Tensor weight = (at::randn({width}) * 0.3 + 1).to(type);
      for (const bool unit_offset : {false, true}) {
        for (const int64_t rows : {1, 5}) {
          expect_composition(
              at::randn({rows, 1, width}).to(type),
              [&](const at::Tensor& x) { return rms_norm(x, weight.to(x.device()), 1e-5, unit_offset); },
              [&](const at::Tensor& x) {
                return test::composed_rms_norm(x, weight.to(x.device()), 1e-5, unit_offset);
              });
        }
      }
    }
    // As many rows as fill the GPU: few threads a row.
    for (const int64_t width : {33, 576, 1536, 4096}) {
      const at::Tensor weight = (at::randn({width}) * 0.3 + 1).to(type);
      expect_composition(
          (at::randn({1500, width}) * 40).to(type),
          [&](const at::Tensor& x) { return rms_norm(x, weight.to(x.device()), 1e-5); },
          [&](const at::Tensor& x) { return test::composed_rms_norm(x, weight.to(x.device()), 1e-5, false); });
    }
  }
}

TEST_F(ElementwiseOnGpu, RotationIsItsComposition) {
  for (const at::ScalarType type : types) {
    for (const auto& [width, half] : std::vector<std::pair<int64_t, int64_t>>{
             {64, 32}, {128, 64}, {256, 128}, {80, 16}, {96, 40}, {6, 3}, {5, 2}, {1, 0}, {20, 10}}) {
      for (const int64_t rows : {1, 37, 1025}) {
        const at::Tensor angles = at::rand({rows, half}) * 6.3;
        expect_composition(
            at::randn({rows, 3, width}).to(type),
            [&](const at::Tensor& x) { return rotate(x, angles.cos().to(x.device()), angles.sin().to(x.device())); },
            [&](const at::Tensor& x) {
              return test::composed_rotation(x, angles.cos().to(x.device()), angles.sin().to(x.device()));
            });
      }
    }
  }
}

TEST_F(ElementwiseOnGpu, ASumAndItsNormAreTheirComposition) {
  for (const at::ScalarType type : types) {
    for (const int64_t width : {1, 33, 576, 4096, 16384, 16385}) {
      for (const int64_t rows : {1, 5, 1500}) {
        if (rows * width > 8000000) continue;
        const at::Tensor weight = (at::randn({width}) * 0.3 + 1).to(type), added = at::randn({rows, width}).to(type);
        for (const bool sum : {false, true}) {
          expect_composition(
              at::randn({rows, width}).to(type),
              [&](const at::Tensor& x) {
                const SumAndNorm both = add_rms_norm(x, added.to(x.device()), weight.to(x.device()), 1e-5);
                return sum ? both.sum : both.normed;
              },
              [&](const at::Tensor& x) {
                const at::Tensor whole = x + added.to(x.device());
                return sum ? whole : test::composed_rms_norm(whole, weight.to(x.device()), 1e-5, false);
              });
        }
      }
    }
  }
}

TEST_F(ElementwiseOnGpu, RotationIntoACacheIsRotationAndCopies) {
  constexpr int64_t heads = 6, groups = 2, slots = 50;
  for (const at::ScalarType type : types) {
    for (const auto& [width, half] :
         std::vector<std::pair<int64_t, int64_t>>{{64, 32}, {128, 64}, {80, 16}, {96, 40}, {6, 3}, {1, 0}}) {
      for (const int64_t rows : {1, 37}) {
        const auto there = [&](const at::Tensor& tensor) { return tensor.to(device()); };
        const at::Tensor angles = there(at::rand({rows, half}) * 6.3), cos = angles.cos(), sin = angles.sin();
        const at::Tensor fused = there(at::randn({rows, heads + 2 * groups, width}).to(type));
        const auto part = [&](int64_t first, int64_t count) { return fused.narrow(1, first, count); };
        const at::Tensor queries = part(0, heads), keys = part(heads, groups), values = part(heads + groups, groups);
        const at::Tensor places = there(at::randperm(slots, at::kLong).narrow(0, 0, rows));
        const at::Tensor kept_keys = there(at::full({slots, groups, width}, 3, type)), kept_values = kept_keys.clone();
        const at::Tensor expected_keys = kept_keys.clone(), expected_values = kept_keys.clone();
        at::Tensor(expected_keys).index_copy_(0, places, rotate(keys, cos, sin));
        at::Tensor(expected_values).index_copy_(0, places, values);
        const at::Tensor rotated = rotate_into_cache(queries, keys, values, cos, sin, places, kept_keys, kept_values);
        EXPECT_TRUE(rotated.equal(rotate(queries, cos, sin))) << width << " " << rows;
        EXPECT_TRUE(kept_keys.equal(expected_keys)) << width << " " << rows;
        EXPECT_TRUE(kept_values.equal(expected_values)) << width << " " << rows;
        // In 8 bits: as the CPU rounds where the kernel does it.
        const at::Tensor packed_keys = empty_int8_heads(slots, groups, width, device()).fill_(3),
                         packed_values = empty_int8_heads(slots, groups, width, device()).fill_(3);
        const at::Tensor again = rotate_into_cache(queries, keys, values, cos, sin, places, packed_keys, packed_values);
        EXPECT_TRUE(again.equal(rotated)) << width << " " << rows;
        const bool exact = type == at::kBFloat16 && width % 4 == 0 && half % 4 == 0;
        const auto expect_packed = [&](const at::Tensor& cache, const at::Tensor& written) {
          at::Tensor expected = empty_int8_heads(slots, groups, width, at::kCPU).fill_(3);
          expected.index_copy_(0, places.to(at::kCPU), int8_rows(written.to(at::kCPU)));
          const at::Tensor found = cache.to(at::kCPU);
          EXPECT_TRUE(!exact || found.equal(expected)) << width << " " << rows;
          const auto whole = [](const at::Tensor& packed) { return unpacked_rows(packed.contiguous(), at::kFloat); };
          EXPECT_LE((whole(found) - whole(expected)).abs().max().item<double>(), 0.05) << width << " " << rows;
        };
        expect_packed(packed_keys, rotate(keys, cos, sin));
        expect_packed(packed_values, values);
      }
    }
  }
}

TEST_F(ElementwiseOnGpu, RotationReadsSlicesOfFusedRows) {
  const at::NoGradGuard none;
  const at::Tensor angles = at::rand({5, 32}).to(device());
  for (const at::ScalarType type : types) {
    const at::Tensor fused = at::randn({5, 9 * 64 + 3}).to(device(), type);
    for (const int64_t first : {0, 1, 3}) {  // 1 and 3: not aligned, and rows of an odd length
      const at::Tensor keys = fused.narrow(1, first, 576).view({5, 9, 64}).narrow(1, 6, 3);
      EXPECT_TRUE(
          rotate(keys, angles.cos(), angles.sin()).equal(rotate(keys.contiguous(), angles.cos(), angles.sin())));
    }
  }
}

TEST_F(ElementwiseOnGpu, GatedActivationIsItsComposition) {
  for (const at::ScalarType type : types) {
    const auto expect = [&](Activation activation, int64_t rows, int64_t width) {
      SCOPED_TRACE(name_of(activation));
      // 1 + tanh and 1 + erf cancel on the left: a unit of float32 there is many of the result's.
      const bool cancels = activation == Activation::gelu || activation == Activation::gelu_tanh;
      const float same_share = cancels ? 0.6f : 0.97f;
      expect_composition((at::randn({rows, 2 * width}) * 5).to(type),
                         [&](const at::Tensor& x) { return gated(activation, x); },
                         [&](const at::Tensor& x) { return test::composed_gated(activation, x); }, same_share);
    };
    for (const Activation activation : activations)
      for (const int64_t width : {1, 3, 8, 17, 100, 1536, 4097}) expect(activation, 6, width);
    expect(Activation::silu, 2111, 2056);  // more than fills the device: two packs a thread
  }
}

TEST_F(ElementwiseOnGpu, RowsThatBeginOffAnAlignedAddressAreReadToo) {
  const at::NoGradGuard none;
  for (const at::ScalarType type : types) {
    const at::Tensor memory = at::randn({257}).to(device(), type), weight = at::ones({64}).to(device(), type);
    const at::Tensor shifted = memory.narrow(0, 1, 256).view({4, 64});
    const at::Tensor aligned = shifted.clone();  // summed in another order
    EXPECT_LE(distance(rms_norm(shifted, weight, 1e-5), rms_norm(aligned, weight, 1e-5)), tolerance(shifted));
    EXPECT_TRUE(gated(Activation::silu, shifted).equal(gated(Activation::silu, aligned)));
  }
}

TEST_F(ElementwiseOnGpu, EmptyTensorsStayEmpty) {
  const at::TensorOptions options = at::TensorOptions(device());
  EXPECT_EQ(rms_norm(at::ones({0, 64}, options), at::ones({64}, options), 1e-5).numel(), 0);
  EXPECT_EQ(gated(Activation::silu, at::ones({0, 64}, options)).sizes(), at::IntArrayRef({0, 32}));
  EXPECT_EQ(rotate(at::ones({0, 2, 8}, options), at::ones({0, 4}, options), at::ones({0, 4}, options)).numel(), 0);
}

TEST_F(ElementwiseOnGpu, ActivationsHoldAtTheEndsOfTheRange) {
  for (const at::ScalarType type : types) {
    const auto of = [&](Activation activation, float gate) {
      return gated(activation, at::tensor({gate, 1.0f}).view({1, 2}).to(device(), type)).item<float>();
    };
    for (const Activation activation : activations) {
      for (const float gate : {-1e30f, -200.0f, -104.0f, -90.0f, -88.0f, 0.0f, 90.0f, 1e30f}) {
        const float expected = gate > 0 ? at::tensor(gate).to(type).item<float>() : 0;
        EXPECT_NEAR(of(activation, gate), expected, 1e-30f) << name_of(activation) << " of " << gate;
      }
      EXPECT_TRUE(std::isnan(of(activation, std::numeric_limits<float>::quiet_NaN()))) << name_of(activation);
    }
  }
}

TEST_F(ElementwiseOnGpu, AnIndexBeyondTheLastGpuIsRefused) {
  EXPECT_TRUE(cuda_is_open());
  EXPECT_EQ(open_device("auto"), at::Device(at::kCUDA, 0));
  try {
    open_device("cuda:127");
    FAIL() << "opened";
  } catch (const base::Error& error) {
    EXPECT_EQ(error.code(), base::ErrorCode::unsupported);
    EXPECT_NE(std::string(error.what()).find("GPU"), std::string::npos) << error.what();
  }
}

}  // namespace
}  // namespace cepe::ops
