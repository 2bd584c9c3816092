// JSON from files that strangers wrote: bounded depth, duplicate keys refused, errors that name the place.
#pragma once

#include <nlohmann/json.hpp>
#include <string>
#include <string_view>

namespace cepe::base {

using Json = nlohmann::json;
using OrderedJson = nlohmann::ordered_json;  // keeps the order of its keys

// `where` names the source in messages ("model/config.json"). Errors: corrupt (with line or byte).
Json parse_json(std::string_view text, const std::string& where);
OrderedJson parse_ordered_json(std::string_view text, const std::string& where);

// A field of an object with its type checked. Integers must be integral and fit; numbers must be finite.
// Errors: corrupt, naming `where`, the field and what was found.
int64_t json_integer(const Json& object, const char* field, const std::string& where);
int64_t json_integer(const Json& object, const char* field, const std::string& where, int64_t otherwise);
double json_number(const Json& object, const char* field, const std::string& where);
double json_number(const Json& object, const char* field, const std::string& where, double otherwise);
bool json_boolean(const Json& object, const char* field, const std::string& where, bool otherwise);
std::string json_string(const Json& object, const char* field, const std::string& where);
std::string json_string(const Json& object, const char* field, const std::string& where, const std::string& otherwise);
// A field that is absent or null counts as absent.
bool json_has(const Json& object, const char* field);

}  // namespace cepe::base
