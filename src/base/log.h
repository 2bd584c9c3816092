// What the program says on standard error beside its results. Lines, never half lines; quiet hides notices.
#pragma once

#include <string_view>

namespace cepe::base {

enum class LogLevel { error, warning, notice, detail };

// The process-wide threshold: `notice` unless --quiet (`warning`) or --verbose (`detail`).
void set_log_level(LogLevel level);
LogLevel log_level();
void log(LogLevel level, std::string_view message);

inline void warn(std::string_view message) { log(LogLevel::warning, message); }
inline void notice(std::string_view message) { log(LogLevel::notice, message); }
inline void detail(std::string_view message) { log(LogLevel::detail, message); }

}  // namespace cepe::base
