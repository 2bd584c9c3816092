// cepe chat: a conversation, with documents as context.
#include <unistd.h>

#include <span>

#include "base/error.h"
#include "base/interrupt.h"
#include "base/log.h"
#include "cli/chat_prompt.h"
#include "cli/commands.h"
#include "cli/documents.h"
#include "cli/generation_options.h"
#include "cli/runtime.h"
#include "cli/standard_streams.h"
#include "context/chunk.h"
#include "data/documents.h"

namespace cepe::cli {
namespace {

struct ChatOptions {
  ModelOptions model;
  GenerationOptions answer;
  std::vector<std::string> documents;
  std::string system;
};

struct Conversation {
  const ChatOptions& options;
  const Runtime& runtime;
  engine::Engine engine;
  ChatPrompt prompt;
  std::vector<std::vector<text::Token>> documents;  // ids
  std::vector<std::string> names;                   // of the documents
  std::vector<text::ChatMessage> messages;
  bool context_is_set = false;
  bool context_has_messages = false;  // the oldest, which left the decoder's window
};

// The conversation's newest part for the decoder; documents, and what was said too long ago, for the encoder.
context::Arrangement arrange_turn(const Conversation& conversation) {
  const Runtime& runtime = conversation.runtime;
  const std::vector<text::Token> ids = conversation.prompt.encode(conversation.messages);
  const int64_t window = decoder_window(conversation.options.answer, runtime.source.decoder.max_positions, false);
  const int64_t chunk_size = runtime.model.adapter ? runtime.model.adapter->chunk_size : 256;
  return context::arrange(conversation.documents, &ids, window, chunk_size, leading_ids(*runtime.tokenizer),
                          conversation.options.model.chunk_overlap);
}

int64_t set_context(Conversation& conversation, const context::Arrangement& arrangement) {
  if (arrangement.chunks.empty()) return conversation.engine.context().rows;
  if (arrangement.moved > 0) {
    base::notice("the conversation is longer than the decoder's window: its oldest " +
                 std::to_string(arrangement.moved) + " tokens go to the encoder");
  }
  if (!conversation.context_is_set || arrangement.moved > 0)
    conversation.engine.set_context(
        conversation.runtime.context_store().get_or_encode(arrangement.chunks, conversation.names));
  conversation.context_is_set = true;
  conversation.context_has_messages |= arrangement.moved > 0;
  return conversation.engine.context().rows;
}

void drop_context(Conversation& conversation) {
  conversation.engine.set_context({});
  conversation.context_is_set = conversation.context_has_messages = false;
}

// `said` is what has been printed, also where this throws.
void answer(Conversation& conversation, std::string& said) {
  const context::Arrangement arrangement = arrange_turn(conversation);
  check_moved(conversation.runtime, arrangement);
  const int64_t context_tokens = set_context(conversation, arrangement);
  engine::Request request = make_request(conversation.runtime, conversation.options.answer, arrangement.decoder);
  request.on_step = [&said](const engine::Step& step) {
    write_output(step.text);
    said += step.text;
    return true;
  };
  const engine::Completion completion = conversation.engine.generate(request);
  write_output("\n");
  tell_of_end(completion, conversation.runtime);
  conversation.messages.push_back({"assistant", completion.text});
  const Account account =
      account_of(std::span(&completion, 1), context_tokens, static_cast<int64_t>(arrangement.decoder.size()), 0);
  base::detail(closing_line(account, conversation.runtime));
}

// What was said of an answer stays in the conversation. A question of whose answer nothing was said does not.
void keep_what_was_said(Conversation& conversation, const std::string& said) {
  if (!said.empty()) {
    conversation.messages.push_back({"assistant", said});
    base::notice("the answer stopped here");
    return;
  }
  conversation.messages.pop_back();
  if (conversation.context_has_messages) drop_context(conversation);  // the question may be among them
  base::notice("stopped before an answer; the message is forgotten");
}

// Ctrl-C on a terminal stops the answer only.
void answer_turn(Conversation& conversation) {
  const bool interactive = standard_input_is_terminal();
  std::string said;
  try {
    answer(conversation, said);
    if (interactive) base::forget_interrupt();  // that came when all was said
  } catch (const base::Interrupted&) {
    if (interactive || !said.empty()) write_output("\n");
    if (!interactive || !base::forget_interrupt()) throw;
    keep_what_was_said(conversation, said);
  }
  base::throw_if_interrupted();
}

void forget(Conversation& conversation) {
  std::erase_if(conversation.messages, [](const text::ChatMessage& message) { return message.role != "system"; });
  drop_context(conversation);
}

// A line as a message. What a terminal mangled is told, and the conversation goes on.
std::optional<std::string> message_of(const std::string& line, bool interactive) {
  try {
    return data::utf8_text(line, "a message");
  } catch (const base::Error& error) {
    if (!interactive) throw;
    base::log(base::LogLevel::error, error.what());
    return std::nullopt;
  }
}

void talk(Conversation& conversation) {
  const bool interactive = standard_input_is_terminal();
  if (interactive && base::log_level() >= base::LogLevel::notice)
    base::notice("/new begins a new conversation, Ctrl-C stops an answer, /quit or Ctrl-D ends");
  while (true) {
    if (interactive && write(STDERR_FILENO, "> ", 2) < 0) return;
    const std::optional<std::string> line = read_input_line();
    if (!line || *line == "/quit") return;
    if (*line == "/new") {
      forget(conversation);
      continue;
    }
    if (line->find_first_not_of(" \t") == std::string::npos) continue;
    const std::optional<std::string> message = message_of(*line, interactive);
    if (!message) continue;
    conversation.messages.push_back({"user", *message});
    answer_turn(conversation);
  }
}

void chat(const ChatOptions& options, const CommonOptions& common) {
  check_answer(options.answer);
  for (const std::string& document : options.documents) {
    if (document == "-")
      throw base::Error(base::ErrorCode::invalid_argument, "--document -: standard input is the conversation");
  }
  engine::EngineOptions engine_settings = engine_options(options.model);
  const std::vector<Document> documents = read_documents(options.documents);
  const std::unique_ptr<Runtime> runtime = open_runtime(options.model, common);
  engine_settings.projections = runtime->projections;
  if (!documents.empty()) require_adapter(*runtime, "--document");
  if (options.answer.endless) require_adapter(*runtime, "--endless");
  check_answer_of(*runtime, options.answer);
  // Before a message is read: an overlap that chunks cannot have.
  if (const auto& adapter = runtime->model.adapter)
    context::split({}, adapter->chunk_size, 0, options.model.chunk_overlap);
  Conversation conversation = {options,
                               *runtime,
                               engine::Engine(runtime->model, *runtime->tokenizer, engine_settings),
                               ChatPrompt(*runtime->tokenizer, runtime->model_name),
                               {},
                               names_of(documents),
                               {}};
  conversation.documents.reserve(documents.size());
  for (const Document& document : documents)
    conversation.documents.push_back(runtime->tokenizer->encode(document.text));
  if (!options.system.empty()) conversation.messages.push_back({"system", data::utf8_text(options.system, "--system")});
  talk(conversation);
}

}  // namespace

void add_chat(CLI::App& program, CommonOptions& common) {
  const auto options = std::make_shared<ChatOptions>();
  options->answer.max_tokens = 512;
  CLI::App* command = add_command(program, "chat", "Talk with a model, a line at a time, with documents as context",
                                  "cepe chat --document manual.txt --temperature 0.7", common,
                                  [options, &common] { chat(*options, common); });
  command->footer(
      "On a terminal Ctrl-C stops an answer, and what was said of it stays in the conversation; at the prompt, or "
      "pressed twice, it ends the program with exit code 130. /new begins a new conversation, /quit or Ctrl-D "
      "ends.\n\n" +
      command->get_footer());
  add_model_options(*command, options->model);
  command->add_option("-d,--document", options->documents, "file or folder; may be given again")
      ->check(not_empty())
      ->allow_extra_args(false)
      ->group("Input");
  command->add_option("--system", options->system, "system message")->group("Input");
  add_generation_options(*command, options->answer);
  add_store_options(*command, options->model);
  add_overlap_option(*command, options->model);
  add_attention_options(*command, options->model);
  add_kept_disk_option(*command, options->model);
}

}  // namespace cepe::cli
