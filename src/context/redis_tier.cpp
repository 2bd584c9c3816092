#include "context/redis_tier.h"

#include <hiredis.h>
#include <poll.h>
#include <signal.h>

#include <algorithm>
#include <charconv>
#include <cstring>
#include <mutex>

#include "base/error.h"
#include "base/hash.h"
#include "base/interrupt.h"
#include "base/log.h"

namespace cepe::context {
namespace {

using Clock = std::chrono::steady_clock;

constexpr size_t keys_a_batch = 16, bytes_a_batch = size_t{4} << 20;  // or one that is larger
constexpr size_t other_bytes = size_t{64} << 10;                      // of a batch's answers beside records

struct Failure {
  std::string what;
};

struct FreeContext {
  void operator()(redisContext* context) const { redisFree(context); }
};
struct FreeReply {
  void operator()(redisReply* reply) const { freeReplyObject(reply); }
};
using Reply = std::unique_ptr<redisReply, FreeReply>;

std::string name_of(const ChunkKey& key) { return "cepe:2:" + base::to_hex(key); }

timeval time_of(Clock::duration duration) {
  const auto microseconds =
      std::max<int64_t>(std::chrono::duration_cast<std::chrono::microseconds>(duration).count(), 1000);
  return {microseconds / 1000000, microseconds % 1000000};
}

// A server that has gone answers a write with a signal that would end the program; here it is only an error.
class WithoutPipeSignal {
 public:
  WithoutPipeSignal() {
    sigemptyset(&pipe_);
    sigaddset(&pipe_, SIGPIPE);
    sigset_t pending;
    sigpending(&pending);
    was_pending_ = sigismember(&pending, SIGPIPE) == 1;
    pthread_sigmask(SIG_BLOCK, &pipe_, &before_);
  }
  ~WithoutPipeSignal() {
    const timespec at_once{};
    while (!was_pending_ && sigtimedwait(&pipe_, nullptr, &at_once) > 0) {
    }
    pthread_sigmask(SIG_SETMASK, &before_, nullptr);
  }
  WithoutPipeSignal(const WithoutPipeSignal&) = delete;
  WithoutPipeSignal& operator=(const WithoutPipeSignal&) = delete;

 private:
  sigset_t pipe_{}, before_{};
  bool was_pending_ = false;
};

// One connection; every function throws Failure, at the latest when the deadline is over.
class Connection {
 public:
  Connection(const RedisAddress& address, Clock::time_point deadline) {
    const timeval timeout = time_of(deadline - Clock::now());
    context_.reset(address.socket_path.empty() ? redisConnectWithTimeout(address.host.c_str(), address.port, timeout)
                                               : redisConnectUnixWithTimeout(address.socket_path.c_str(), timeout));
    check();
    if (address.database == 0) return;
    append({"SELECT", std::to_string(address.database)});
    send(deadline);
    expect(receive(deadline), REDIS_REPLY_STATUS);
  }

  void append(const std::vector<std::string_view>& words) {
    std::vector<const char*> texts;
    std::vector<size_t> sizes;
    for (const std::string_view word : words) {
      texts.push_back(word.data());
      sizes.push_back(word.size());
    }
    redisAppendCommandArgv(context_.get(), static_cast<int>(words.size()), texts.data(), sizes.data());
  }

  void send(Clock::time_point deadline) {
    for (int done = 0; !done;) {
      wait(POLLOUT, deadline);
      redisSetTimeout(context_.get(), time_of(deadline - Clock::now()));
      if (redisBufferWrite(context_.get(), &done) != REDIS_OK) check();
    }
  }

  // `most_bytes`: of this answer and those that have come behind it.
  Reply receive(Clock::time_point deadline, size_t most_bytes = other_bytes) {
    while (true) {
      void* reply = nullptr;
      if (redisReaderGetReply(context_->reader, &reply) != REDIS_OK) throw Failure{"it does not speak the protocol"};
      if (reply) return Reply(static_cast<redisReply*>(reply));
      wait(POLLIN, deadline);
      if (redisBufferRead(context_.get()) != REDIS_OK) check();
      if (context_->reader->len > most_bytes) throw Failure{"an answer that is larger than what was asked for"};
    }
  }

  static void expect(const Reply& reply, int type) {
    if (reply->type == REDIS_REPLY_ERROR) throw Failure{reply->str};
    if (reply->type != type) throw Failure{"an answer of another kind than was asked for"};
  }

 private:
  void check() const {
    if (!context_) throw Failure{"no memory for a connection"};
    if (context_->err) throw Failure{context_->errstr};
  }
  void wait(short event, Clock::time_point deadline) const {
    const auto left = std::chrono::duration_cast<std::chrono::milliseconds>(deadline - Clock::now()).count();
    pollfd waited{context_->fd, event, 0};
    if (left <= 0 || ::poll(&waited, 1, static_cast<int>(left)) == 0) throw Failure{"it does not answer in time"};
  }
  std::unique_ptr<redisContext, FreeContext> context_;
};

class RedisTier : public RemoteTier {
 public:
  RedisTier(RedisAddress address, std::chrono::milliseconds timeout, std::chrono::milliseconds pause)
      : address_(std::move(address)), timeout_(timeout), pause_(pause) {}

  std::vector<bool> read(std::span<const Wanted> wanted) override {
    std::vector<bool> found(wanted.size());
    in_batches(wanted, [&](Connection& connection, size_t first, size_t end, Clock::time_point deadline) {
      size_t most_bytes = other_bytes;
      for (size_t i = first; i < end; ++i) {
        connection.append({"GET", name_of(wanted[i].key)});
        most_bytes += record_bytes(wanted[i].shape, "");
      }
      connection.send(deadline);
      for (size_t i = first; i < end; ++i) found[i] = take(connection.receive(deadline, most_bytes), wanted[i]);
    });
    base::throw_if_interrupted();
    return found;
  }

  void write(std::span<const Item> items) override {
    in_batches(items, [&](Connection& connection, size_t first, size_t end, Clock::time_point deadline) {
      if (Clock::now() < writing_off_until_) return;
      for (size_t i = first; i < end; ++i) {
        const RecordHead head = make_head(items[i].key, items[i].shape, items[i].values, "");
        std::string record(reinterpret_cast<const char*>(head.data()), head.size());
        record.append(reinterpret_cast<const char*>(items[i].values.data()), items[i].values.size());
        record += make_tail(items[i].shape, "");
        connection.append({"SET", name_of(items[i].key), record});
      }
      connection.send(deadline);
      for (size_t i = first; i < end; ++i) {
        const Reply reply = connection.receive(deadline);
        if (reply->type == REDIS_REPLY_ERROR) {  // out of memory, read only: it may still be read
          writing_off_until_ = Clock::now() + pause_;
          say(std::string(reply->str) + "; going on without writing to it");
        } else {
          Connection::expect(reply, REDIS_REPLY_STATUS);
        }
      }
    });
  }

 private:
  bool take(const Reply& reply, const Wanted& wanted) {
    if (reply->type == REDIS_REPLY_NIL) return false;
    Connection::expect(reply, REDIS_REPLY_STRING);
    const std::span bytes = std::as_bytes(std::span(reply->str, reply->len));
    const std::optional<RecordInfo> info = read_head(bytes);
    std::string wrong = info ? difference(*info, wanted.key, wanted.shape) : "no record";
    if (wrong.empty() && bytes.size() != info->record_bytes()) wrong = "a record of another length";
    if (wrong.empty()) {
      const auto values = bytes.subspan(record_head_bytes, wanted.values.size());
      const std::string_view source(reply->str + record_head_bytes + values.size(), info->source_bytes);
      if (agrees(*info, values, source)) {
        std::copy(values.begin(), values.end(), wanted.values.begin());
        return true;
      }
      wrong = "its bytes contradict its checksum";
    }
    base::log(std::exchange(said_wrong_, true) ? base::LogLevel::detail : base::LogLevel::warning,
              "remote store, " + name_of(wanted.key) + ": " + wrong + "; its text is encoded again");
    return false;
  }

  template <class Record, class Action>
  void in_batches(std::span<const Record> records, Action action) {
    for (size_t first = 0, end = 0; first < records.size(); first = end) {
      for (size_t bytes = 0; end < records.size() && end < first + keys_a_batch; ++end) {
        bytes += records[end].values.size();
        if (end > first && bytes > bytes_a_batch) break;
      }
      if (base::interrupted()) return;
      const std::scoped_lock lock(mutex_);  // between two batches others have their turn
      if (Clock::now() < off_until_) return;
      const WithoutPipeSignal quiet;
      try {
        connected(
            [&](Connection& connection, Clock::time_point deadline) { action(connection, first, end, deadline); });
      } catch (const Failure& failure) {
        off_until_ = Clock::now() + pause_;
        say(failure.what + "; going on without it");
      }
    }
  }

  // A connection that has served before may have been closed for being idle: then once more over a new one.
  template <class Action>
  void connected(Action action) {
    const Clock::time_point deadline = Clock::now() + timeout_;
    while (true) {
      const bool is_new = !connection_;
      try {
        if (is_new) connection_ = std::make_unique<Connection>(address_, deadline);
        return action(*connection_, deadline);
      } catch (const Failure&) {
        connection_.reset();
        if (is_new || Clock::now() >= deadline) throw;
      }
    }
  }

  void say(const std::string& what) {
    if (std::exchange(said_, true)) return;
    const std::string& name = address_.socket_path;
    base::warn("remote store " + (name.empty() ? address_.host + ":" + std::to_string(address_.port) : name) + ": " +
               what);
  }

  RedisAddress address_;
  std::chrono::milliseconds timeout_, pause_;
  std::mutex mutex_;
  std::unique_ptr<Connection> connection_;
  Clock::time_point off_until_{}, writing_off_until_{};
  bool said_ = false, said_wrong_ = false;  // of the server, of a record
};

}  // namespace

RedisAddress parse_redis_address(const std::string& text) {
  const auto fail = [&] {
    throw base::Error(base::ErrorCode::invalid_argument,
                      "'" + text + "' is no address of a remote store; expected redis://host[:port][/database] or " +
                          "redis+unix:///path/of/socket");
  };
  const auto number = [&](std::string_view digits, int least, int most) {
    int value = -1;
    const auto [end, error] = std::from_chars(digits.data(), digits.data() + digits.size(), value);
    if (error != std::errc() || end != digits.data() + digits.size() || value < least || value > most) fail();
    return value;
  };
  RedisAddress address;
  constexpr std::string_view network = "redis://", local = "redis+unix://";
  if (text.starts_with(local)) {
    address.socket_path = text.substr(local.size());
    if (!address.socket_path.starts_with('/')) fail();
    return address;
  }
  if (!text.starts_with(network)) fail();
  std::string rest = text.substr(network.size());
  if (const size_t slash = rest.find('/'); slash != std::string::npos) {
    if (slash + 1 < rest.size()) address.database = number(std::string_view(rest).substr(slash + 1), 0, 1000000);
    rest.resize(slash);
  }
  const size_t bracket = rest.rfind(']');  // [::1]:6379
  const size_t colon = rest.rfind(':');
  if (colon != std::string::npos && (bracket == std::string::npos || colon > bracket)) {
    address.port = number(std::string_view(rest).substr(colon + 1), 1, 65535);
    rest.resize(colon);
  }
  if (rest.starts_with('[') && rest.ends_with(']')) rest = rest.substr(1, rest.size() - 2);
  if (rest.empty() || rest.find('@') != std::string::npos) fail();
  address.host = rest;
  return address;
}

std::unique_ptr<RemoteTier> open_redis(const RedisAddress& address, std::chrono::milliseconds timeout,
                                       std::chrono::milliseconds pause) {
  return std::make_unique<RedisTier>(address, timeout, pause);
}

}  // namespace cepe::context
