// Values of options that are more than a number.
#pragma once

#include <cstdint>
#include <string>
#include <vector>

namespace cepe::base {

// "8G", "500M", "1.5 GiB", "4096": bytes, units of 1024. Errors: invalid_argument, naming `option`.
int64_t parse_bytes(const std::string& text, const std::string& option);

// "8-29", "0,2,4-6": sorted, each once. Errors: invalid_argument, naming `option`.
std::vector<int64_t> parse_layers(const std::string& text, const std::string& option);

// "0,8K,32K,127K": token counts, K and M of 1024. Errors: invalid_argument, naming `option`.
std::vector<int64_t> parse_counts(const std::string& text, const std::string& option);

}  // namespace cepe::base
