#include "cli/version.h"

namespace cepe::cli {

std::string program_version() { return std::string("cepe ") + CEPE_VERSION; }

}  // namespace cepe::cli
