#include "formats/pickle.h"

#include <algorithm>
#include <bit>
#include <limits>
#include <map>

#include "formats/byte_reader.h"

namespace cepe::formats {
namespace {

using Kind = PickleValue::Kind;

constexpr size_t max_pickle_bytes = size_t{64} << 20;
constexpr size_t max_pickled_values = size_t{1} << 21;
constexpr std::string_view ordered_dict = "collections OrderedDict";

// The opcodes that are read (pickletools' names).
enum Opcode : uint8_t {
  op_mark = '(',
  op_stop = '.',
  op_pop = '0',
  op_pop_mark = '1',
  op_dup = '2',
  op_binfloat = 'G',
  op_binint = 'J',
  op_binint1 = 'K',
  op_binint2 = 'M',
  op_none = 'N',
  op_binpersid = 'Q',
  op_reduce = 'R',
  op_binstring = 'T',
  op_short_binstring = 'U',
  op_binunicode = 'X',
  op_append = 'a',
  op_build = 'b',
  op_global = 'c',
  op_appends = 'e',
  op_binget = 'h',
  op_long_binget = 'j',
  op_binput = 'q',
  op_long_binput = 'r',
  op_setitem = 's',
  op_tuple = 't',
  op_setitems = 'u',
  op_empty_list = ']',
  op_empty_tuple = ')',
  op_empty_dict = '}',
  op_binbytes = 'B',
  op_short_binbytes = 'C',
  op_proto = 0x80,
  op_tuple1 = 0x85,
  op_tuple2 = 0x86,
  op_tuple3 = 0x87,
  op_newtrue = 0x88,
  op_newfalse = 0x89,
  op_long1 = 0x8a,
  op_short_binunicode = 0x8c,
  op_binunicode8 = 0x8d,
  op_binbytes8 = 0x8e,
  op_empty_set = 0x8f,
  op_additems = 0x90,
  op_frozenset = 0x91,
  op_stack_global = 0x93,
  op_memoize = 0x94,
  op_frame = 0x95,
  op_bytearray8 = 0x96,
};

class Machine {
 public:
  Machine(std::span<const std::byte> bytes, std::span<const std::string_view> allowed, const std::string& where)
      : reader_(bytes, where), allowed_(allowed) {}

  Pickle run() {
    while (true) {
      opcode_ = reader_.read<uint8_t>("the pickle");
      if (opcode_ == op_stop) {
        pickle_.root = pop();
        return std::move(pickle_);
      }
      if (!number_step() && !text_step() && !container_step() && !stack_step() && !object_step()) {
        fail_unsupported(reader_.where(), "pickle opcode " + std::to_string(opcode_) + place() +
                                              "; read are those that protocols 2 to 5 need for tensors and arrays");
      }
    }
  }

 private:
  std::string place() const { return " at byte " + std::to_string(reader_.position() - 1); }
  [[noreturn]] void fail(const std::string& what) const { fail_corrupt(reader_.where(), "pickle: " + what + place()); }

  // Numbers and other values that hold nothing.
  bool number_step() {
    switch (opcode_) {
      case op_none:
        return push(Kind::none);
      case op_newtrue:
        return push(Kind::boolean, 1);
      case op_newfalse:
        return push(Kind::boolean, 0);
      case op_binint:
        return push(Kind::integer, reader_.read<int32_t>("a number"));
      case op_binint1:
        return push(Kind::integer, reader_.read<uint8_t>("a number"));
      case op_binint2:
        return push(Kind::integer, reader_.read<uint16_t>("a number"));
      case op_long1:
        return push_long();
      case op_binfloat:
        return reader_.take(8, "a number"), push(Kind::real);
      case op_proto:
        return check_protocol();
      case op_frame:
        return reader_.take(8, "a frame"), true;  // a hint for readers of streams
      default:
        return false;
    }
  }

  bool text_step() {
    switch (opcode_) {
      case op_short_binstring:
      case op_short_binbytes:
      case op_short_binunicode:
        return push_text(reader_.read<uint8_t>("a string"));
      case op_binstring:
      case op_binbytes:
      case op_binunicode:
        return push_text(reader_.read<uint32_t>("a string"));
      case op_binunicode8:
      case op_binbytes8:
      case op_bytearray8:
        return push_text(reader_.read<uint64_t>("a string"));
      default:
        return false;
    }
  }

  bool container_step() {
    switch (opcode_) {
      case op_empty_tuple:
        return push(Kind::tuple);
      case op_empty_list:
      case op_empty_set:
        return push(Kind::list);
      case op_empty_dict:
        return push(Kind::mapping);
      case op_tuple1:
        return push_items(Kind::tuple, pop_last(1));
      case op_tuple2:
        return push_items(Kind::tuple, pop_last(2));
      case op_tuple3:
        return push_items(Kind::tuple, pop_last(3));
      case op_tuple:
        return push_items(Kind::tuple, pop_to_mark());
      case op_frozenset:
        return push_items(Kind::list, pop_to_mark());
      case op_append:
        return extend(Kind::list, pop_last(1));
      case op_appends:
      case op_additems:
        return extend(Kind::list, pop_to_mark());
      case op_setitem:
        return extend(Kind::mapping, pop_last(2));
      case op_setitems:
        return extend(Kind::mapping, pop_to_mark());
      default:
        return false;
    }
  }

  bool stack_step() {
    switch (opcode_) {
      case op_mark:
        return marks_.push_back(stack_.size()), true;
      case op_pop:
        return pop(), true;
      case op_pop_mark:
        return pop_to_mark(), true;
      case op_dup:
        return stack_.push_back(top()), true;
      case op_binput:
        return remember(reader_.read<uint8_t>("a memo index"));
      case op_long_binput:
        return remember(reader_.read<uint32_t>("a memo index"));
      case op_memoize:
        return remember(static_cast<uint32_t>(memo_.size()));
      case op_binget:
        return recall(reader_.read<uint8_t>("a memo index"));
      case op_long_binget:
        return recall(reader_.read<uint32_t>("a memo index"));
      default:
        return false;
    }
  }

  bool object_step() {
    switch (opcode_) {
      case op_global: {
        const std::string_view module = line();
        return push_global(module, line());
      }
      case op_stack_global: {
        const auto names = pop_last(2);
        return push_global(text_of(names[0]), text_of(names[1]));
      }
      case op_reduce:
        return reduce();
      case op_build:
        return build();
      case op_binpersid:
        return push_items(Kind::persistent, pop_last(1));
      default:
        return false;
    }
  }

  bool check_protocol() {
    const auto protocol = reader_.read<uint8_t>("the protocol");
    if (protocol < 2 || protocol > 5) fail_unsupported(reader_.where(), "pickle protocol " + std::to_string(protocol));
    return true;
  }

  // A little-endian two's complement number; one of more than 8 bytes is kept like a real: not at all.
  bool push_long() {
    const auto bytes = reader_.take(reader_.read<uint8_t>("a number"), "a number");
    if (bytes.size() > 8) return push(Kind::real);
    uint64_t value = 0;
    for (size_t i = 0; i < bytes.size(); ++i) value |= std::to_integer<uint64_t>(bytes[i]) << (8 * i);
    const auto unused = static_cast<unsigned>(64 - 8 * bytes.size());
    if (!bytes.empty()) value <<= unused;
    return push(Kind::integer, bytes.empty() ? 0 : std::bit_cast<int64_t>(value) >> unused);
  }

  bool push_text(uint64_t size) {
    const std::string_view text = reader_.text(size, "a string");
    push(Kind::text);
    pickle_.values.back().text = text;
    return true;
  }

  bool push_global(std::string_view module, std::string_view name) {
    const std::string wanted = std::string(module) + " " + std::string(name);
    const auto found = std::find(allowed_.begin(), allowed_.end(), wanted);
    if (found == allowed_.end()) {
      fail_unsupported(reader_.where(), "refers to " + in_quotes(std::string(module) + "." + std::string(name)) +
                                            place() + "; only tensors and plain containers are read");
    }
    push(Kind::global);
    pickle_.values.back().text = *found;
    return true;
  }

  bool reduce() {
    auto items = pop_last(2);
    const PickleValue& function = pickle_.values[items[0]];
    const PickleValue& arguments = pickle_.values[items[1]];
    if (function.kind != Kind::global) fail("calls what is no function");
    if (arguments.kind != Kind::tuple) fail("calls a function with what is no tuple of arguments");
    if (function.text == ordered_dict && arguments.items.empty()) return push(Kind::mapping);
    return push_items(Kind::call, std::move(items));
  }

  // The state of what was called becomes its third item; attributes of a container (an OrderedDict's _metadata) are not
  // kept.
  bool build() {
    const uint32_t state = pop_last(1)[0];
    PickleValue& object = pickle_.values[top()];
    if (object.kind == Kind::call) {
      object.items.resize(2);
      object.items.push_back(state);
    }
    return true;
  }

  bool push(Kind kind, int64_t number = 0) {
    if (pickle_.values.size() >= max_pickled_values)
      fail("more than " + std::to_string(max_pickled_values) + " values");
    stack_.push_back(static_cast<uint32_t>(pickle_.values.size()));
    pickle_.values.push_back({kind, number, {}, {}});
    return true;
  }

  bool push_items(Kind kind, std::vector<uint32_t> items) {
    push(kind);
    pickle_.values.back().items = std::move(items);
    return true;
  }

  bool extend(Kind kind, const std::vector<uint32_t>& items) {
    PickleValue& container = pickle_.values[top()];
    if (container.kind == Kind::call) return true;  // items of a container that is not kept
    if (container.kind != kind)
      fail(kind == Kind::list ? "appends to what is no list" : "sets items of what is no dict");
    if (kind == Kind::mapping && items.size() % 2 != 0) fail("a key without a value");
    container.items.insert(container.items.end(), items.begin(), items.end());
    return true;
  }

  // The part of the stack that belongs to the innermost mark.
  size_t floor() const { return marks_.empty() ? 0 : marks_.back(); }

  uint32_t top() const {
    if (stack_.size() <= floor()) fail("the stack is empty");
    return stack_.back();
  }

  uint32_t pop() {
    const uint32_t value = top();
    stack_.pop_back();
    return value;
  }

  std::vector<uint32_t> pop_last(size_t count) {
    if (stack_.size() - floor() < count) fail("the stack is empty");
    std::vector<uint32_t> items(stack_.end() - static_cast<std::ptrdiff_t>(count), stack_.end());
    stack_.resize(stack_.size() - count);
    return items;
  }

  std::vector<uint32_t> pop_to_mark() {
    if (marks_.empty()) fail("there is no mark");
    auto items = pop_last(stack_.size() - floor());
    marks_.pop_back();
    return items;
  }

  bool remember(uint32_t index) {
    if (memo_.size() >= max_pickled_values)
      fail("more than " + std::to_string(max_pickled_values) + " remembered values");
    memo_[index] = top();
    return true;
  }

  bool recall(uint32_t index) {
    const auto found = memo_.find(index);
    if (found == memo_.end()) fail("nothing was remembered as " + std::to_string(index));
    stack_.push_back(found->second);
    return true;
  }

  std::string_view text_of(uint32_t index) const {
    if (pickle_.values[index].kind != Kind::text) fail("a global's name is no string");
    return pickle_.values[index].text;
  }

  // Up to the next newline, which is taken too; at most 255 bytes, as no allowed name is longer.
  std::string_view line() {
    ByteReader ahead = reader_;
    size_t size = 0;
    while (ahead.read<char>("a global's name") != '\n') {
      if (++size > 255) fail("a global's name without an end");
    }
    const std::string_view text = reader_.text(size, "a global's name");
    reader_.take(1, "a global's name");
    return text;
  }

  ByteReader reader_;
  std::span<const std::string_view> allowed_;
  Pickle pickle_;
  std::vector<uint32_t> stack_;
  std::vector<size_t> marks_;          // heights of the stack
  std::map<uint32_t, uint32_t> memo_;  // ordered, so that no choice of indices makes it slow
  uint8_t opcode_ = 0;
};

}  // namespace

Pickle read_pickle(std::span<const std::byte> bytes, std::span<const std::string_view> allowed,
                   const std::string& where) {
  if (bytes.size() > max_pickle_bytes) {
    fail_unsupported(where, "a pickle of " + std::to_string(bytes.size()) + " bytes; at most " +
                                std::to_string(max_pickle_bytes) + " are read");
  }
  return Machine(bytes, allowed, where).run();
}

}  // namespace cepe::formats
