// Time that processors gave, not that passed: what else the machine has to do does not count.
#pragma once

namespace cepe::base {

double thread_seconds();  // of the calling thread, since it began

}  // namespace cepe::base
