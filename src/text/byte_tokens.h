// The tokens "<0x00>" ... "<0xFF>" that stand for single bytes where a vocabulary lacks a character.
#pragma once

#include <array>
#include <cstdint>
#include <optional>
#include <string_view>

#include "text/vocabulary.h"

namespace cepe::text {

std::array<Token, 256> byte_tokens_of(const Vocabulary& vocabulary);  // Vocabulary::absent where there is none
std::optional<uint8_t> byte_of_token(std::string_view token);         // empty where the token is no such

}  // namespace cepe::text
