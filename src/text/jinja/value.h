// Values of a template: Python's, as far as chat templates see them. A string carries one byte per byte that says
// whether it came from a message, through every operation.
#pragma once

#include <cstdint>
#include <memory>
#include <string>
#include <string_view>
#include <unordered_map>
#include <utility>
#include <variant>
#include <vector>

namespace cepe::text::jinja {

struct Text {
  std::string bytes;
  std::string mask;  // bytes.size() bytes, 1 where the byte came from a message

  Text() = default;
  explicit Text(std::string_view plain, bool from_message = false)
      : bytes(plain), mask(plain.size(), from_message ? '\1' : '\0') {}
  size_t size() const { return bytes.size(); }
  void append(const Text& other);
  void append(std::string_view plain, char from_message = 0);
  Text part(size_t begin, size_t end) const;
};

// What one rendering may cost. Everything that grows with the input is charged here.
class Budget {
 public:
  Budget(int64_t steps, int64_t bytes) : steps_(steps), bytes_(bytes) {}
  void step(size_t count = 1);
  void allocate(size_t bytes);

 private:
  int64_t steps_;
  int64_t bytes_;
};

struct Statement;
struct List;
struct Dict;
struct Namespace;
struct Callable;
struct Loop;
struct Scope;

struct Undefined {
  std::shared_ptr<const std::string> name;  // for the message when it is used
};
struct None {};

struct Value {
  std::variant<Undefined, None, bool, int64_t, double, std::shared_ptr<const Text>, std::shared_ptr<const List>,
               std::shared_ptr<const Dict>, std::shared_ptr<Namespace>, std::shared_ptr<const Callable>,
               std::shared_ptr<const Loop>>
      data;

  Value() = default;
  template <class T>
  explicit Value(T value) : data(std::move(value)) {}
  explicit Value(Text text) : data(std::make_shared<const Text>(std::move(text))) {}

  template <class T>
  bool is() const {
    return std::holds_alternative<T>(data);
  }
  bool is_undefined() const { return is<Undefined>(); }
  bool is_none() const { return is<None>(); }
  bool is_integer() const { return is<int64_t>() || is<bool>(); }
  bool is_number() const { return is_integer() || is<double>(); }
  const Text* text() const { return pointer<const Text>(); }
  const List* list() const { return pointer<const List>(); }
  const Dict* dict() const { return pointer<const Dict>(); }
  Namespace* name_space() const { return pointer<Namespace>(); }
  const Callable* callable() const { return pointer<const Callable>(); }
  const Loop* loop() const { return pointer<const Loop>(); }
  int64_t integer() const { return is<bool>() ? int64_t{std::get<bool>(data)} : std::get<int64_t>(data); }
  double number() const { return is<double>() ? std::get<double>(data) : static_cast<double>(integer()); }

 private:
  template <class T>
  T* pointer() const {
    const auto* held = std::get_if<std::shared_ptr<T>>(&data);
    return held ? held->get() : nullptr;
  }
};

// Lists and dictionaries never change once made, as in the sandbox that templates are written for; `nesting` bounds
// their depth, so that destroying or printing one needs a bounded stack.
struct List {
  std::vector<Value> items;
  bool tuple = false;
  int nesting = 1;
};
struct Dict {
  std::vector<std::pair<Value, Value>> items;      // in order of insertion
  std::unordered_map<std::string, size_t> places;  // key_of -> index into items
  int nesting = 1;

  const Value* find(const Value& key) const;
  const Value* find(std::string_view key) const;
  void put(const Value& key, Value value);  // Errors: a key that cannot be one
};
struct Namespace {
  std::unordered_map<std::string, Value> fields;
};
struct Callable {
  enum class Kind { function, method, macro, cycle } kind = Kind::function;
  std::string name;
  Value self;                        // of a method or loop.cycle
  const Statement* macro = nullptr;  // part of the program
  std::weak_ptr<Scope> closure;
};
struct Loop {
  std::shared_ptr<const List> items;
  size_t index = 0;
  int depth = 1;
};

Value make_text(std::string_view plain);
Value make_list(std::vector<Value> items, bool tuple = false);
Value make_dict(Dict dict);
Value undefined(std::string name);

bool truth(const Value& value);
std::string_view type_name(const Value& value);  // "string", "list"..., for messages
bool equal(const Value& a, const Value& b, Budget& budget);
// Negative, zero or positive. Errors: types that have no order.
int compare(const Value& a, const Value& b, Budget& budget);
bool contains(const Value& container, const Value& item, Budget& budget);
// The items that a loop over the value sees. Errors: not iterable.
std::vector<Value> iterate(const Value& value, Budget& budget);
// Bytes or items: what an operation over the value costs.
size_t extent(const Value& value);

// As str() and repr() of Python; undefined is empty.
Text to_text(const Value& value, Budget& budget);

[[noreturn]] void fail(const std::string& message);         // the template and what it was given do not fit together
[[noreturn]] void unsupported(const std::string& message);  // a construct or an amount of work

}  // namespace cepe::text::jinja
