// Kernels at every level of vector instructions that this processor has.
#pragma once

#include <gtest/gtest.h>

#include <string>

#include "ops/cpu/kernels.h"

namespace cepe::test {

template <class Body>
void at_every_level(Body body) {
  const ops::cpu::Level before = ops::cpu::level();
  for (const ops::cpu::Level level : {ops::cpu::Level::portable, ops::cpu::Level::avx2, ops::cpu::Level::avx512}) {
    if (!ops::cpu::choose_level(level)) continue;
    SCOPED_TRACE("level " + std::to_string(static_cast<int>(level)));
    body();
  }
  ops::cpu::choose_level(before);
}

}  // namespace cepe::test
