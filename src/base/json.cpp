#include "base/json.h"

#include <cmath>
#include <limits>
#include <unordered_set>
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

// Follows the parser: counts depth, remembers the keys of each open object.
class Guard {
 public:
  explicit Guard(const std::string& where) : where_(where) {}
  template <class AnyJson>
  bool operator()(int depth, Json::parse_event_t event, AnyJson& value) {
    if (static_cast<size_t>(depth) > max_depth)
      fail_at(where_, "nested deeper than " + std::to_string(max_depth) + " levels");
    if (event == Json::parse_event_t::object_start) keys_.emplace_back();
    if (event == Json::parse_event_t::object_end) keys_.pop_back();
    if (event == Json::parse_event_t::key && !keys_.back().insert(value.template get<std::string>()).second) {
      fail_at(where_, "key '" + value.template get<std::string>().substr(0, 80) + "' occurs twice");
    }
    return true;
  }

 private:
  const std::string& where_;
  std::vector<std::unordered_set<std::string>> keys_;
};

template <class AnyJson>
AnyJson parse(std::string_view text, const std::string& where) {
  Guard guard(where);
  try {
    return AnyJson::parse(text.begin(), text.end(), [&](int depth, auto event, AnyJson& value) {
      return guard(depth, static_cast<Json::parse_event_t>(event), value);
    });
  } catch (const Json::exception& error) {
    fail_at(where, std::string("not valid JSON: ") + error.what());
  }
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
