// How long work takes on a GPU when it is recorded in a graph, so that launches do not wait for the host.
#pragma once

#include <cstdint>
#include <functional>

namespace cepe::bench {

// Seconds of one of the `calls` equal calls that `work` makes, the median of eleven runs.
double seconds_of(const std::function<void()>& work, int64_t calls);

}  // namespace cepe::bench
