// SHA-256 (OpenSSL): keys where a collision would hand over somebody else's text.
#pragma once

#include <array>
#include <cstddef>
#include <memory>
#include <span>
#include <string>
#include <string_view>

namespace cepe::base {

using Digest = std::array<std::byte, 32>;

class Sha256 {
 public:
  Sha256();
  ~Sha256();
  Sha256(Sha256&&) noexcept;
  Sha256& operator=(Sha256&&) noexcept;
  void update(std::span<const std::byte> bytes);
  template <class T>
  void update_values(std::span<const T> values) {
    update(std::as_bytes(values));
  }
  void update_text(std::string_view text);  // behind its length (uint64): what follows is told from what belongs to it
  Digest finish();

 private:
  struct State;
  std::unique_ptr<State> state_;
};

Digest sha256(std::span<const std::byte> bytes);
std::string to_hex(const Digest& digest);

}  // namespace cepe::base
