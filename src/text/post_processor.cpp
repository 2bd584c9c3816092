#include "text/post_processor.h"

#include "base/error.h"

namespace cepe::text {
namespace {

using base::Error;
using base::ErrorCode;
using base::Json;

constexpr size_t most_tokens = 4096;

[[noreturn]] void fail(const std::string& where, const std::string& what) {
  throw Error(ErrorCode::corrupt, where + ": " + what);
}

const Json& array_of(const Json& json, const char* field, const std::string& where) {
  if (!base::json_has(json, field) || !json[field].is_array())
    fail(where, std::string("field '") + field + "' must be an array");
  return json[field];
}

struct PostProcessorReader {
  int64_t vocabulary_size;
  const std::string& where;
  PostProcessor result;

  Token checked(const Json& id) const {
    if (!id.is_number_integer() || id.get<int64_t>() < 0 || id.get<int64_t>() >= vocabulary_size) {
      fail(where, "token id " + id.dump().substr(0, 40) + " is out of range for a vocabulary of " +
                      std::to_string(vocabulary_size));
    }
    return static_cast<Token>(id.get<int64_t>());
  }

  // A later processor of a sequence wraps what the earlier ones made.
  void wrap(std::vector<Token> before, const std::vector<Token>& after) {
    before.insert(before.end(), result.before.begin(), result.before.end());
    result.before = std::move(before);
    result.after.insert(result.after.end(), after.begin(), after.end());
    if (result.before.size() + result.after.size() > most_tokens)
      throw Error(ErrorCode::unsupported, where + ": adds more than " + std::to_string(most_tokens) + " tokens");
  }

  // ["[SEP]", 102]
  Token named_token(const Json& json, const char* field) const {
    const Json& pair = array_of(json, field, where);
    if (pair.size() != 2) fail(where, std::string("field '") + field + "' must be [token, id]");
    return checked(pair[1]);
  }

  void read_template(const Json& json) {
    std::vector<Token> parts[2];
    bool after = false;
    for (const Json& item : array_of(json, "single", where)) {
      if (base::json_has(item, "Sequence")) {
        if (after) throw Error(ErrorCode::unsupported, where + ": a template that repeats its text is not supported");
        after = true;
        continue;
      }
      if (!base::json_has(item, "SpecialToken")) fail(where, "an item of 'single' must be Sequence or SpecialToken");
      const std::string name = base::json_string(item["SpecialToken"], "id", where);
      if (!base::json_has(json, "special_tokens") || !base::json_has(json["special_tokens"], name.c_str()))
        fail(where, "'special_tokens' lacks '" + name.substr(0, 80) + "'");
      for (const Json& id : array_of(json["special_tokens"][name], "ids", where)) parts[after].push_back(checked(id));
    }
    if (!after) fail(where, "'single' has no place for the text");
    wrap(std::move(parts[0]), parts[1]);
  }

  void read(const Json& json) {
    if (json.is_null()) return;
    const std::string type = base::json_string(json, "type", where);
    if (type == "Sequence") {
      for (const Json& part : array_of(json, "processors", where)) read(part);
    } else if (type == "TemplateProcessing") {
      read_template(json);
    } else if (type == "BertProcessing" || type == "RobertaProcessing") {
      wrap({named_token(json, "cls")}, {named_token(json, "sep")});
    } else if (type != "ByteLevel") {  // that one only moves offsets
      throw Error(ErrorCode::unsupported, where + ": post-processor '" + type.substr(0, 80) + "' is not supported");
    }
  }
};

}  // namespace

PostProcessor post_processor_from_json(const Json& json, int64_t vocabulary_size, const std::string& where) {
  PostProcessorReader reader{vocabulary_size, where, {}};
  reader.read(json);
  return std::move(reader.result);
}

}  // namespace cepe::text
