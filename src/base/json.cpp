#include "base/json.h"

#include <cmath>
#include <limits>
#include <utility>
#include <vector>

#include "base/error.h"

namespace cepe::base {
namespace {

constexpr size_t max_depth = 64;

[[noreturn]] void fail_at(const std::string& where, const std::string& what) {
  throw Error(ErrorCode::corrupt, where + ": " + what);
}

[[noreturn]] void wrong_type(const Json& object, const char* field, const std::string& where, const char* wanted) {
  std::string found =
      json_has(object, field) ? object.at(field).dump(-1, ' ', true, Json::error_handler_t::replace) : "nothing";
  if (found.size() > 80) found = found.substr(0, 80) + "...";
  fail_at(where, std::string("field '") + field + "' must be " + wanted + ", found " + found);
}

// Makes the value from the parser's events. (The library's own parser with a callback looks at a whole list again after
// each object in it, which takes minutes for a list of 100,000.)
template <class AnyJson>
class Builder : public nlohmann::json_sax<AnyJson> {
 public:
  Builder(AnyJson& root, const std::string& where) : root_(root), where_(where) {}

  bool null() override { return add(nullptr); }
  bool boolean(bool value) override { return add(value); }
  bool number_integer(typename AnyJson::number_integer_t value) override { return add(value); }
  bool number_unsigned(typename AnyJson::number_unsigned_t value) override { return add(value); }
  bool number_float(typename AnyJson::number_float_t value, const std::string&) override { return add(value); }
  bool string(std::string& value) override { return add(std::move(value)); }
  bool binary(typename AnyJson::binary_t&) override { return false; }  // JSON text has none
  bool start_object(size_t) override { return open(AnyJson::object()); }
  bool start_array(size_t) override { return open(AnyJson::array()); }
  bool end_object() override { return close(); }
  bool end_array() override { return close(); }

  bool key(std::string& name) override {
    if (open_.back()->contains(name)) fail_at(where_, "key '" + name.substr(0, 80) + "' occurs twice");
    field_ = &(*open_.back())[name];
    return true;
  }
  bool parse_error(size_t position, const std::string&, const nlohmann::detail::exception& error) override {
    std::string what = error.what();
    what.erase(0, what.find("] ") + 2);  // the library's own "[json.exception.parse_error.101] "
    if (what.find(" at line ") == std::string::npos) what += " at byte " + std::to_string(position);
    fail_at(where_, "not valid JSON: " + what);
  }

 private:
  AnyJson& place(AnyJson value) {
    if (open_.size() > max_depth) fail_at(where_, "nested deeper than " + std::to_string(max_depth) + " levels");
    if (open_.empty()) return root_ = std::move(value);
    if (!open_.back()->is_array()) return *field_ = std::move(value);
    open_.back()->push_back(std::move(value));
    return open_.back()->back();
  }
  bool add(AnyJson value) {
    place(std::move(value));
    return true;
  }
  bool open(AnyJson value) {
    open_.push_back(&place(std::move(value)));
    return true;
  }
  bool close() {
    open_.pop_back();
    return true;
  }

  AnyJson& root_;
  const std::string& where_;
  std::vector<AnyJson*> open_;  // from the outside in; none of them moves while it is open
  AnyJson* field_ = nullptr;    // of the innermost object, whose value comes next
};

template <class AnyJson>
AnyJson parse(std::string_view text, const std::string& where) {
  AnyJson root;
  Builder<AnyJson> builder(root, where);
  AnyJson::sax_parse(text.begin(), text.end(), &builder);
  return root;
}

}  // namespace

Json parse_json(std::string_view text, const std::string& where) { return parse<Json>(text, where); }
OrderedJson parse_ordered_json(std::string_view text, const std::string& where) {
  return parse<OrderedJson>(text, where);
}

bool json_has(const Json& object, const char* field) {
  return object.is_object() && object.contains(field) && !object.at(field).is_null();
}

int64_t json_integer(const Json& object, const char* field, const std::string& where) {
  if (!json_has(object, field)) wrong_type(object, field, where, "an integer");
  const Json& value = object.at(field);
  if (value.is_number_unsigned() &&
      value.get<uint64_t>() > static_cast<uint64_t>(std::numeric_limits<int64_t>::max())) {
    wrong_type(object, field, where, "an integer of 63 bits");
  }
  if (value.is_number_integer()) return value.get<int64_t>();
  if (value.is_number_float() && std::floor(value.get<double>()) == value.get<double>() &&
      std::abs(value.get<double>()) < 9e15) {
    return static_cast<int64_t>(value.get<double>());
  }
  wrong_type(object, field, where, "an integer");
}

int64_t json_integer(const Json& object, const char* field, const std::string& where, int64_t otherwise) {
  return json_has(object, field) ? json_integer(object, field, where) : otherwise;
}

double json_number(const Json& object, const char* field, const std::string& where) {
  if (!json_has(object, field) || !object.at(field).is_number() || !std::isfinite(object.at(field).get<double>())) {
    wrong_type(object, field, where, "a finite number");
  }
  return object.at(field).get<double>();
}

double json_number(const Json& object, const char* field, const std::string& where, double otherwise) {
  return json_has(object, field) ? json_number(object, field, where) : otherwise;
}

bool json_boolean(const Json& object, const char* field, const std::string& where, bool otherwise) {
  if (!json_has(object, field)) return otherwise;
  if (!object.at(field).is_boolean()) wrong_type(object, field, where, "true or false");
  return object.at(field).get<bool>();
}

std::string json_string(const Json& object, const char* field, const std::string& where) {
  if (!json_has(object, field) || !object.at(field).is_string()) wrong_type(object, field, where, "a string");
  return object.at(field).get<std::string>();
}

std::string json_string(const Json& object, const char* field, const std::string& where, const std::string& otherwise) {
  return json_has(object, field) ? json_string(object, field, where) : otherwise;
}

}  // namespace cepe::base
