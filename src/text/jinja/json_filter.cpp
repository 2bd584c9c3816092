// The filter tojson as transformers defines it: json.dumps with ensure_ascii=False and nothing escaped for HTML.
#include <algorithm>
#include <cmath>

#include "text/jinja/builtins.h"
#include "text/jinja/text_operations.h"

namespace cepe::text::jinja {
namespace {

class JsonWriter {
 public:
  JsonWriter(Context& context, const Arguments& arguments) : context_(context) {
    arguments.check("tojson", 4, {"ensure_ascii", "indent", "separators", "sort_keys"});
    const Value* ascii = arguments.find(0, "ensure_ascii");
    const Value* indent = arguments.find(1, "indent");
    const Value* separators = arguments.find(2, "separators");
    const Value* sort = arguments.find(3, "sort_keys");
    if (ascii && truth(*ascii)) unsupported("'tojson' with ensure_ascii");
    sort_ = sort && truth(*sort);
    if (indent && !indent->is_none()) {
      indents_ = true;
      indentation_ =
          indent->text()
              ? *indent->text()
              : Text(std::string(static_cast<size_t>(std::clamp<int64_t>(expect_integer(*indent, "tojson"), 0, 64)),
                                 ' '));
      between_items_ = Text(",");
    }
    if (separators && !separators->is_none()) {
      if (!separators->list() || separators->list()->items.size() != 2) fail("'tojson' needs two separators");
      between_items_ = Text(expect_string(separators->list()->items[0], "tojson"));
      after_key_ = Text(expect_string(separators->list()->items[1], "tojson"));
    }
  }

  void write(const Value& value) {
    context_.budget.step();
    const size_t before = out.size();
    if (const Text* text = value.text()) {
      append_json_string(out, *text);
    } else if (value.is<bool>()) {
      out.append(std::get<bool>(value.data) ? "true" : "false");
    } else if (value.is<int64_t>()) {
      out.append(std::to_string(value.integer()));
    } else if (value.is<double>()) {
      write_number(value.number());
    } else if (value.is_none()) {
      out.append("null");
    } else if (const List* list = value.list()) {
      return write_list(*list);
    } else if (const Dict* dict = value.dict()) {
      return write_dict(*dict);
    } else {
      fail("'tojson' of a " + std::string(type_name(value)));
    }
    context_.budget.allocate(2 * (out.size() - before));
  }

  Text out;

 private:
  void write_number(double number) {
    if (std::isfinite(number)) return out.append(format_number(number));
    out.append(std::isnan(number) ? "NaN" : number < 0 ? "-Infinity" : "Infinity");
  }

  void new_line() {
    if (!indents_) return;
    context_.budget.allocate(2 * (1 + indentation_.size() * depth_));
    out.append("\n");
    for (size_t i = 0; i < depth_; ++i) out.append(indentation_);
  }

  void write_list(const List& list) {
    if (list.items.empty()) return out.append("[]");
    out.append("[");
    ++depth_;
    for (size_t i = 0; i < list.items.size(); ++i) {
      separate(i);
      write(list.items[i]);
    }
    --depth_;
    new_line();
    out.append("]");
  }

  void separate(size_t place) {
    context_.budget.allocate(2 * (between_items_.size() + after_key_.size()));
    if (place) out.append(between_items_);
    new_line();
  }

  void write_dict(const Dict& dict) {
    if (dict.items.empty()) return out.append("{}");
    std::vector<const std::pair<Value, Value>*> items;
    for (const auto& item : dict.items) items.push_back(&item);
    if (sort_) {
      std::stable_sort(items.begin(), items.end(),
                       [&](const auto* a, const auto* b) { return compare(a->first, b->first, context_.budget) < 0; });
    }
    out.append("{");
    ++depth_;
    for (size_t i = 0; i < items.size(); ++i) {
      separate(i);
      write_key(items[i]->first);
      out.append(after_key_);
      write(items[i]->second);
    }
    --depth_;
    new_line();
    out.append("}");
  }

  void write_key(const Value& key) {
    if (key.text()) return write(key);
    out.append("\"");
    write(key);
    out.append("\"");
  }

  Context& context_;
  Text indentation_, between_items_{", "}, after_key_{": "};
  bool indents_ = false;
  bool sort_ = false;
  size_t depth_ = 0;
};

}  // namespace

Text to_json(Context& context, const Value& value, const Arguments& arguments) {
  JsonWriter writer(context, arguments);
  writer.write(value);
  return std::move(writer.out);
}

}  // namespace cepe::text::jinja
