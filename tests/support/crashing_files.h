// A file system in memory that knows what has been synced. It can stop at any operation, as a machine without power
// does, and comes back with everything synced and a random part of the rest: names and removals that came through or
// not, each by itself (a renaming as a whole); files cut off, with blocks of zeros or of rubbish. It can also refuse an
// operation, and fill up.
#pragma once

#include <algorithm>
#include <cstdint>
#include <limits>
#include <map>
#include <memory>
#include <optional>
#include <random>
#include <stdexcept>
#include <string>
#include <utility>
#include <vector>

#include "base/error.h"
#include "base/file_layer.h"

namespace cepe::test {

struct Crash {};  // no std::exception: nobody may take it for an error and go on

class CrashingFiles : public base::FileLayer {
  struct Node;
  using NodePointer = std::shared_ptr<Node>;
  using Entries = std::map<std::string, NodePointer>;
  struct Change {
    std::string erased;
    std::optional<std::pair<std::string, NodePointer>> inserted;
  };
  struct Write {
    size_t place;
    std::string bytes;
    std::optional<size_t> cut;  // instead of writing: to this size
  };
  struct Node {
    bool is_folder = false;
    std::string data;
    size_t synced = 0;  // bytes of data
    // A file that is written anywhere: what is on the medium, and the writes since.
    bool anywhere = false;
    std::string on_medium;
    std::vector<Write> writes;
    bool held = false;  // by a Growing
    Entries entries;
    Entries durable;
    std::vector<Change> pending;  // from durable to entries
  };

 public:
  explicit CrashingFiles(uint64_t seed) : random_(seed) { root_->is_folder = true; }

  // The operation after so many more stops the machine: it and all later ones throw Crash until restart.
  void crash_after(int64_t operations) { crash_ = operations_ + operations; }
  // The operation after so many more is refused with an io error, that one only.
  void fail_after(int64_t operations) { failure_ = operations_ + operations; }
  void fill_up_after(int64_t bytes) { room_ = bytes; }
  int64_t operations() const { return operations_; }

  void restart() {
    const double odds[] = {0, 0.5, 0.9, 1};
    keep_ = odds[random_() % 4];
    settle(*root_);
    restart_process();
  }

  // Only the process was killed: what it had done is all there, and still not synced.
  void restart_process() {
    crash_ = failure_ = never;
    stopped_ = false;
  }

  // As it stands right now, to look at without changing this one.
  CrashingFiles copy() const {
    CrashingFiles other(1);
    other.root_ = copy_of(*root_);
    return other;
  }

  // To damage a file, synced as it stands.
  std::string& content(const base::Path& file) { return find(file)->data; }

  bool exists(const base::Path& path) override {
    begin_operation();
    return look_up(path) != nullptr;
  }
  void create_folder(const base::Path& folder) override {
    begin_operation();
    auto node = std::make_shared<Node>();
    node->is_folder = true;
    insert(folder, node);
  }
  std::unique_ptr<Output> create(const base::Path& file) override {
    begin_operation();
    auto node = std::make_shared<Node>();
    insert(file, node);
    return std::make_unique<File>(*this, node);
  }
  void rename(const base::Path& from, const base::Path& to) override {
    begin_operation();
    if (from.parent_path() != to.parent_path()) throw std::logic_error("renamed into another folder");
    if (look_up(to)) throw std::logic_error("renamed onto " + to.string());
    const NodePointer node = find(from);
    change(*find(from.parent_path()), {from.filename(), std::pair(to.filename().string(), node)});
  }
  void sync_folder(const base::Path& folder) override {
    begin_operation();
    Node& node = *find(folder);
    node.durable = node.entries;
    node.pending.clear();
  }
  void remove(const base::Path& path) override {
    const NodePointer node = find(path);
    const Entries inside = node->entries;
    for (const auto& [name, child] : inside) remove(path / name);
    begin_operation();
    change(*find(path.parent_path()), {path.filename(), std::nullopt});
  }
  std::vector<std::string> list(const base::Path& folder) override {
    begin_operation();
    std::vector<std::string> names;
    for (const auto& [name, node] : find(folder)->entries) names.push_back(name);
    return names;
  }
  std::unique_ptr<Growing> grow(const base::Path& file, bool make) override {
    begin_operation();
    NodePointer node = look_up(file);
    if (make == (node != nullptr) || (node && node->held)) return nullptr;
    if (make) insert(file, node = std::make_shared<Node>());
    return std::make_unique<Grown>(*this, node, file);
  }
  std::unique_ptr<Reading> open(const base::Path& file) override {
    begin_operation();
    const NodePointer node = look_up(file);
    return node && !node->is_folder ? std::make_unique<Read>(*this, node) : nullptr;
  }

  // A file that may be written anywhere, as a database's is. Syncing it makes its name durable where `names` says so.
  class Anywhere {
   public:
    Anywhere(CrashingFiles& files, const base::Path& path) : files_(files), path_(path) {
      node_ = files.look_up(path);
      if (!node_) files.insert(path, node_ = std::make_shared<Node>());
      node_->anywhere = true;
    }
    std::string_view content() {
      files_.begin_operation();
      return node_->data;
    }
    void write(size_t place, std::string_view bytes) {
      if (files_.stopped_) files_.begin_operation();
      const bool stops = files_.will_stop();
      const Write write{place, std::string(stops ? bytes.substr(0, files_.random_() % (bytes.size() + 1)) : bytes), {}};
      put(node_->data, write);
      node_->writes.push_back(write);
      files_.begin_operation();
    }
    void cut(size_t size) {
      files_.begin_operation();
      const Write write{0, "", size};
      put(node_->data, write);
      node_->writes.push_back(write);
    }
    void sync(bool names) {
      files_.begin_operation();
      node_->on_medium = node_->data;
      node_->writes.clear();
      if (names) files_.sync_folder(path_.parent_path());
    }

   private:
    friend CrashingFiles;
    static void put(std::string& data, const Write& write) {
      if (write.cut) return data.resize(*write.cut);
      if (data.size() < write.place + write.bytes.size()) data.resize(write.place + write.bytes.size());
      data.replace(write.place, write.bytes.size(), write.bytes);
    }
    CrashingFiles& files_;
    base::Path path_;
    NodePointer node_;
  };
  bool has(const base::Path& path) const { return look_up(path) != nullptr; }
  bool stopped() const { return stopped_; }

  Content read(const base::Path& file) override {
    begin_operation();
    const auto bytes = std::make_shared<const std::string>(find(file)->data);
    return {bytes, std::as_bytes(std::span(bytes->data(), bytes->size()))};
  }

 private:
  static constexpr int64_t never = std::numeric_limits<int64_t>::max();

  class File : public Output {
   public:
    File(CrashingFiles& files, NodePointer node) : files_(files), node_(std::move(node)) {}
    void append(std::span<const std::byte> bytes) override {
      const std::string_view text(reinterpret_cast<const char*>(bytes.data()), bytes.size());
      const auto room = static_cast<size_t>(std::max<int64_t>(files_.room_, 0));
      files_.room_ -= static_cast<int64_t>(bytes.size());
      node_->data += text.substr(0, files_.will_stop() ? files_.random_() % (bytes.size() + 1) : room);
      files_.begin_operation();
      if (bytes.size() > room) throw base::Error(base::ErrorCode::io, "cannot write: No space left on device");
    }
    void sync() override {
      files_.begin_operation();
      node_->synced = node_->data.size();
    }

   private:
    CrashingFiles& files_;
    NodePointer node_;
  };

  class Grown : public Growing {
   public:
    Grown(CrashingFiles& files, NodePointer node, base::Path path)
        : file_(files, node), files_(files), node_(std::move(node)), path_(std::move(path)) {
      node_->held = true;
    }
    ~Grown() override { node_->held = false; }
    int64_t size() override {
      files_.begin_operation();
      return static_cast<int64_t>(node_->data.size());
    }
    void append(std::span<const std::byte> bytes) override { file_.append(bytes); }
    void sync() override { file_.sync(); }
    void cut(int64_t size) override {
      files_.begin_operation();
      node_->data.resize(static_cast<size_t>(size));
      node_->synced = std::min(node_->synced, node_->data.size());
    }
    bool has_name() override { return files_.look_up(path_) == node_; }

   private:
    File file_;
    CrashingFiles& files_;
    NodePointer node_;
    base::Path path_;
  };
  class Read : public Reading {
   public:
    Read(CrashingFiles& files, NodePointer node) : files_(files), node_(std::move(node)) {}
    int64_t size() override { return static_cast<int64_t>(node_->data.size()); }
    size_t read(int64_t place, std::span<std::byte> bytes) override {
      files_.begin_operation();
      const std::string_view data = node_->data;
      if (static_cast<size_t>(place) >= data.size()) return 0;
      const std::string_view part = data.substr(static_cast<size_t>(place), bytes.size());
      std::copy(part.begin(), part.end(), reinterpret_cast<char*>(bytes.data()));
      return part.size();
    }

   private:
    CrashingFiles& files_;
    NodePointer node_;
  };

  bool will_stop() const { return stopped_ || operations_ == crash_; }

  void begin_operation() {
    if (will_stop()) {
      stopped_ = true;
      throw Crash{};
    }
    if (operations_++ == failure_) throw base::Error(base::ErrorCode::io, "refused: Input/output error");
  }

  NodePointer look_up(const base::Path& path) const {
    NodePointer node = root_;
    for (const base::Path& part : path.relative_path()) {
      const auto found = node->entries.find(part.string());
      if (found == node->entries.end()) return nullptr;
      node = found->second;
    }
    return node;
  }
  NodePointer find(const base::Path& path) const {
    NodePointer node = look_up(path);
    if (!node) throw base::Error(base::ErrorCode::not_found, path.string() + ": no such file");
    return node;
  }
  void insert(const base::Path& path, NodePointer node) {
    change(*find(path.parent_path()), {"", std::pair(path.filename().string(), std::move(node))});
  }

  static void apply(Entries& entries, const Change& change) {
    entries.erase(change.erased);
    if (change.inserted) entries[change.inserted->first] = change.inserted->second;
  }
  static void change(Node& folder, Change change) {
    apply(folder.entries, change);
    folder.pending.push_back(std::move(change));
  }

  bool keeps() { return std::uniform_real_distribution<>()(random_) < keep_; }

  // What a restart finds.
  void settle(Node& node) {
    if (node.anywhere) {
      node.data = node.on_medium;
      for (const Write& write : node.writes)
        if (keeps()) Anywhere::put(node.data, write);
      node.on_medium = node.data;
      node.writes.clear();
      return;
    }
    if (!node.is_folder) return tear(node);
    for (const Change& change : node.pending) {
      if (keeps()) apply(node.durable, change);
    }
    node.pending.clear();
    node.entries = node.durable;
    for (const auto& [name, child] : node.entries) settle(*child);
  }
  void tear(Node& file) {
    constexpr size_t block = 64;
    const size_t unsynced = file.data.size() - file.synced;
    if (!keeps()) file.data.resize(file.synced + random_() % (unsynced + 1));
    for (size_t at = file.synced; at < file.data.size(); at += block) {
      if (keeps()) continue;
      const char rubbish = random_() % 2 ? '\0' : static_cast<char>(random_());
      std::fill_n(file.data.begin() + static_cast<std::ptrdiff_t>(at), std::min(block, file.data.size() - at), rubbish);
    }
    file.synced = file.data.size();
  }

  static NodePointer copy_of(const Node& node) {
    auto copy = std::make_shared<Node>(node);
    for (auto& [name, child] : copy->entries) child = copy_of(*child);
    copy->durable = copy->entries;
    copy->pending.clear();
    return copy;
  }

  std::mt19937_64 random_;
  NodePointer root_ = std::make_shared<Node>();
  double keep_ = 0.5;  // of what was not synced
  int64_t operations_ = 0;
  int64_t crash_ = never;
  int64_t failure_ = never;
  int64_t room_ = never;
  bool stopped_ = false;
};

}  // namespace cepe::test
