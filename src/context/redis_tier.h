// The remote tier over the Redis protocol (hiredis): keys "cepe:2:<key in 64 digits>", values the records of record.h
// without the document's name.
#pragma once

#include <chrono>
#include <memory>
#include <string>

#include "context/remote_tier.h"

namespace cepe::context {

struct RedisAddress {
  std::string host;  // or
  std::string socket_path;
  int port = 6379;
  int database = 0;
};
// redis://host[:port][/database] or redis+unix:///path/of/socket. Errors: invalid_argument.
RedisAddress parse_redis_address(const std::string& text);

// Connects when it is first used, and once more where a connection that served was closed. A server that does not
// answer within `timeout` (of connecting, and of each batch of 16 chunks, or fewer that are large: 4 MiB) is said once
// and left alone for `pause`; nothing waits longer than that. One that refuses to keep something is read on, and
// written to after `pause` again. (Looking up a host's name is the system's business and takes what it takes.)
std::unique_ptr<RemoteTier> open_redis(const RedisAddress& address,
                                       std::chrono::milliseconds timeout = std::chrono::milliseconds(2000),
                                       std::chrono::milliseconds pause = std::chrono::seconds(60));

}  // namespace cepe::context
