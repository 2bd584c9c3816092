#pragma once

#include <string>

namespace cepe::cli {

std::string program_version();  // "cepe 0.1.0"

}  // namespace cepe::cli
