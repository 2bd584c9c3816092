// Against a server of Debian's, started for the test, and against what is none.
#include "context/redis_tier.h"

#include <ATen/ops/equal.h>
#include <fcntl.h>
#include <gmock/gmock.h>
#include <gtest/gtest.h>
#include <hiredis.h>
#include <netinet/in.h>
#include <signal.h>
#include <sys/socket.h>
#include <sys/wait.h>
#include <unistd.h>

#include <filesystem>
#include <iostream>
#include <thread>

#include "base/hash.h"
#include "context/context_store.h"
#include "disk_records.h"
#include "expect_error.h"
#include "tiny_encoder.h"

namespace cepe::context {
namespace {

using std::chrono::milliseconds;
using testing::HasSubstr;
namespace fs = std::filesystem;

class Server {
 public:
  explicit Server(const fs::path& folder) : socket_(folder / "redis.socket") {
    fs::create_directories(folder);
    process_ = ::fork();
    if (process_ == 0) {
      const int nothing = ::open("/dev/null", O_RDWR);
      ::dup2(nothing, 1);
      ::dup2(nothing, 2);
      ::execl("/usr/bin/redis-server", "redis-server", "--port", "0", "--unixsocket", socket_.c_str(), "--save", "",
              "--appendonly", "no", "--dir", folder.c_str(), static_cast<char*>(nullptr));
      ::_exit(127);
    }
    for (int i = 0; i < 500 && !answers(); ++i) std::this_thread::sleep_for(milliseconds(10));
  }
  ~Server() {
    signal(SIGKILL);
    int status = 0;
    ::waitpid(process_, &status, 0);
  }
  void signal(int number) const { ::kill(process_, number); }
  RedisAddress address() const { return parse_redis_address("redis+unix://" + socket_.string()); }
  void order(const char* command) const {
    redisContext* context = redisConnectUnix(socket_.c_str());
    freeReplyObject(redisCommand(context, command));
    redisFree(context);
  }
  void set(const std::string& key, const std::string& value) const {
    redisContext* context = redisConnectUnix(socket_.c_str());
    freeReplyObject(redisCommand(context, "SET %s %b", key.c_str(), value.data(), value.size()));
    redisFree(context);
  }

 private:
  bool answers() const {
    redisContext* context = redisConnectUnix(socket_.c_str());
    const bool there = context && !context->err;
    redisFree(context);
    return there;
  }
  fs::path socket_;
  pid_t process_ = -1;
};

class Redis : public testing::Test {
 protected:
  fs::path folder = test::quick_folder() / ("cepe-redis-" + std::to_string(::getpid()));
  void SetUp() override {
    if (fs::exists("/usr/bin/redis-server")) return;
    std::cerr << "SKIPPED: the remote tier, without Debian's redis-server\n";
    GTEST_SKIP();
  }
  void TearDown() override { fs::remove_all(folder); }

  static void put(RemoteTier& tier, int number) {
    const std::vector<std::byte> values = test::record_values(number);
    const RemoteTier::Item item{test::record_key(number), test::small_shape, values};
    tier.write({&item, 1});
  }
  static bool has(RemoteTier& tier, int number) {
    std::vector<std::byte> values(test::small_shape.payload_bytes());
    const RemoteTier::Wanted wanted{test::record_key(number), test::small_shape, values};
    const bool found = tier.read({&wanted, 1})[0];
    EXPECT_TRUE(!found || values == test::record_values(number));
    return found;
  }
};

TEST_F(Redis, GivesBackWhatAnotherProcessPutThere) {
  const Server server(folder);
  const auto one = open_redis(server.address()), other = open_redis(server.address());
  for (int number = 0; number < 50; number += 2) put(*one, number);
  for (int number = 0; number < 50; ++number) EXPECT_EQ(has(*other, number), number % 2 == 0);
}

TEST_F(Redis, DamagedAndForeignValuesAreSaidAndNotUsed) {
  const Server server(folder);
  const auto tier = open_redis(server.address());
  const std::string name = "cepe:2:" + base::to_hex(test::record_key(1));
  const RecordHead head = make_head(test::record_key(1), test::small_shape, test::record_values(1), "");
  std::string record(reinterpret_cast<const char*>(head.data()), head.size());
  record.append(reinterpret_cast<const char*>(test::record_values(1).data()), test::small_shape.payload_bytes());
  record += make_tail(test::small_shape, "");
  server.set(name, record);
  EXPECT_TRUE(has(*tier, 1));
  testing::internal::CaptureStderr();
  for (size_t place = 0; place < record.size(); place += 3) {
    std::string damaged = record;
    damaged[place] = static_cast<char>(damaged[place] ^ 4);
    server.set(name, damaged);
    const bool is_filler = place >= record_head_bytes + test::small_shape.payload_bytes();
    EXPECT_EQ(has(*tier, 1), is_filler) << "byte " << place;
  }
  testing::internal::GetCapturedStderr();
  for (const std::string& value : {std::string(), std::string("text"), record.substr(0, 130), record + "more"}) {
    server.set(name, value);
    const auto other = open_redis(server.address());
    testing::internal::CaptureStderr();
    for (int i = 0; i < 3; ++i) EXPECT_FALSE(has(*other, 1));
    const std::string said = testing::internal::GetCapturedStderr();
    EXPECT_EQ(std::count(said.begin(), said.end(), '\n'), 1) << said;
    EXPECT_THAT(said, HasSubstr(name));
  }
}

TEST_F(Redis, AServerThatDiesOrHangsCostsOneWarningAndNoMoreThanTheTimeout) {
  for (const int signal : {SIGKILL, SIGSTOP}) {
    const Server server(folder);
    const auto tier = open_redis(server.address(), milliseconds(300));
    put(*tier, 1);
    EXPECT_TRUE(has(*tier, 1));
    server.signal(signal);
    testing::internal::CaptureStderr();
    const auto start = std::chrono::steady_clock::now();
    for (int i = 0; i < 20; ++i) {
      EXPECT_FALSE(has(*tier, 1));
      put(*tier, 2);
    }
    EXPECT_LT(std::chrono::steady_clock::now() - start, milliseconds(900));
    const std::string said = testing::internal::GetCapturedStderr();
    EXPECT_EQ(std::count(said.begin(), said.end(), '\n'), 1) << said;
    server.signal(SIGCONT);
  }
}

TEST_F(Redis, ComesBackAfterAPause) {
  const Server server(folder);
  const auto tier = open_redis(server.address(), milliseconds(200), milliseconds(100));
  put(*tier, 1);
  server.signal(SIGSTOP);
  EXPECT_FALSE(has(*tier, 1));
  server.signal(SIGCONT);
  std::this_thread::sleep_for(milliseconds(150));
  EXPECT_TRUE(has(*tier, 1));
}

TEST_F(Redis, AServerThatRefusesToKeepIsSaidOnceAndReadOn) {
  const Server server(folder);
  const auto tier = open_redis(server.address());
  put(*tier, 1);
  server.order("CONFIG SET maxmemory 1");
  testing::internal::CaptureStderr();
  const std::vector<std::byte> values = test::record_values(2);
  const RemoteTier::Item item{test::record_key(2), test::small_shape, values};
  tier->write(std::vector(3, item));
  put(*tier, 3);
  EXPECT_TRUE(has(*tier, 1));
  EXPECT_FALSE(has(*tier, 2));
  const std::string said = testing::internal::GetCapturedStderr();
  EXPECT_EQ(std::count(said.begin(), said.end(), '\n'), 1) << said;
  EXPECT_THAT(said, HasSubstr("OOM"));
}

TEST_F(Redis, AConnectionThatTheServerClosedIsMadeAnew) {
  const Server server(folder);
  const auto tier = open_redis(server.address());
  testing::internal::CaptureStderr();
  put(*tier, 1);
  server.order("CLIENT KILL TYPE normal");
  EXPECT_TRUE(has(*tier, 1));
  server.order("CLIENT KILL TYPE normal");
  put(*tier, 2);
  EXPECT_TRUE(has(*tier, 2));
  EXPECT_EQ(testing::internal::GetCapturedStderr(), "");
}

TEST_F(Redis, LargeRecordsGoInSmallerBatches) {
  const Server server(folder);
  const auto tier = open_redis(server.address());
  const RecordShape large{RecordShape::Type::float32, 768, 1024};  // 3 MiB
  const std::vector<std::byte> values(large.payload_bytes());
  std::vector<RemoteTier::Item> items(5, {{}, large, values});
  for (int number = 0; number < 5; ++number) items[static_cast<size_t>(number)].key = test::record_key(number);
  tier->write(items);
  std::vector<std::vector<std::byte>> found(items.size(), std::vector<std::byte>(values.size(), std::byte{1}));
  std::vector<RemoteTier::Wanted> wanted;
  for (size_t i = 0; i < items.size(); ++i) wanted.push_back({items[i].key, large, found[i]});
  EXPECT_EQ(tier->read(wanted), std::vector<bool>(items.size(), true));
  for (const auto& record : found) EXPECT_EQ(record, values);
}

TEST_F(Redis, IsTheTierBehindTheDisk) {
  const Server server(folder / "server");
  const model::Adapter adapter = test::tiny_adapter();
  StoreOptions options;
  options.remote = open_redis(server.address());
  ContextStore first(adapter, options);
  const model::ContextStates states = first.get_or_encode(test::some_chunks());
  options.folder = folder / "chunks";
  {
    ContextStore second(adapter, options);
    const model::ContextStates again = second.get_or_encode(test::some_chunks());
    for (size_t i = 0; i < states.pages.size(); ++i) EXPECT_TRUE(at::equal(again.pages[i], states.pages[i]));
    EXPECT_EQ(second.counters().encoded, 0);
    EXPECT_EQ(second.counters().remote.hits, 5);
  }
  options.remote = nullptr;
  ContextStore third(adapter, options);  // what came from there is on the disk
  third.get_or_encode(test::some_chunks());
  EXPECT_EQ(third.counters().disk.hits, 5);
}

TEST(RedisAddress, IsReadOrRefused) {
  const RedisAddress address = parse_redis_address("redis://cache.local:7000/3");
  EXPECT_EQ(address.host, "cache.local");
  EXPECT_EQ(address.port, 7000);
  EXPECT_EQ(address.database, 3);
  EXPECT_EQ(parse_redis_address("redis://[::1]:1").host, "::1");
  EXPECT_EQ(parse_redis_address("redis://host").port, 6379);
  EXPECT_EQ(parse_redis_address("redis+unix:///run/redis.socket").socket_path, "/run/redis.socket");
  for (const char* wrong : {"", "host", "http://host", "redis://", "redis://host:0", "redis://host:70000",
                            "redis://host:x", "redis://host/-1", "redis://user@host", "redis+unix://relative"}) {
    test::expect_error(base::ErrorCode::invalid_argument, std::string("'") + wrong + "'",
                       [&] { parse_redis_address(wrong); });
  }
}

// Accepts and never says a word.
class SilentServer {
 public:
  SilentServer() : socket_(::socket(AF_INET, SOCK_STREAM | SOCK_CLOEXEC, 0)) {
    sockaddr_in address{};
    address.sin_family = AF_INET;
    address.sin_addr.s_addr = htonl(INADDR_LOOPBACK);
    EXPECT_EQ(::bind(socket_, reinterpret_cast<sockaddr*>(&address), sizeof address), 0);
    EXPECT_EQ(::listen(socket_, 4), 0);
    socklen_t size = sizeof address;
    ::getsockname(socket_, reinterpret_cast<sockaddr*>(&address), &size);
    port_ = ntohs(address.sin_port);
  }
  ~SilentServer() { ::close(socket_); }
  SilentServer(const SilentServer&) = delete;
  SilentServer& operator=(const SilentServer&) = delete;
  int socket() const { return socket_; }
  RedisAddress address() const { return {"127.0.0.1", "", port_, 0}; }

 private:
  int socket_, port_ = 0;
};

TEST(RedisSilence, ASilentServerIsLeftAfterTheTimeout) {
  const SilentServer server;
  const auto tier = open_redis(server.address(), milliseconds(200));
  std::vector<std::byte> values(test::small_shape.payload_bytes());
  const RemoteTier::Wanted wanted{test::record_key(1), test::small_shape, values};
  const auto start = std::chrono::steady_clock::now();
  EXPECT_FALSE(tier->read({&wanted, 1})[0]);
  EXPECT_LT(std::chrono::steady_clock::now() - start, milliseconds(500));
}

TEST(RedisFlood, AnAnswerThatIsLargerThanWhatWasAskedForIsNotReadOn) {
  const SilentServer server;
  size_t sent = 0;
  std::thread flood([&] {
    const int connection = ::accept(server.socket(), nullptr, nullptr);
    std::string bytes = "$536870912\r\n" + std::string(size_t{1} << 20, 'x');
    for (ssize_t count = 0; (count = ::send(connection, bytes.data(), bytes.size(), MSG_NOSIGNAL)) > 0;)
      sent += static_cast<size_t>(count);
    ::close(connection);
  });
  auto tier = open_redis(server.address());
  std::vector<std::byte> values(test::small_shape.payload_bytes());
  const RemoteTier::Wanted wanted{test::record_key(1), test::small_shape, values};
  testing::internal::CaptureStderr();
  EXPECT_FALSE(tier->read({&wanted, 1})[0]);
  tier.reset();  // hangs up
  flood.join();
  EXPECT_THAT(testing::internal::GetCapturedStderr(), HasSubstr("larger than what was asked for; going on without it"));
  EXPECT_LT(sent, size_t{64} << 20) << "but for what the system buffers";
}

}  // namespace
}  // namespace cepe::context
