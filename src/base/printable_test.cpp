#include "base/printable.h"

#include <gtest/gtest.h>

#include "base/error.h"
#include "base/log.h"

namespace cepe::base {
namespace {

TEST(Printable, ControlCharactersAreWrittenAsEscapes) {
  EXPECT_EQ(printable("a\x1b[31mb\nc\td\re\x7f"
                      "f"),
            "a\\x1b[31mb\\nc\\td\\re\\x7f"
            "f");
  EXPECT_EQ(printable(std::string_view("\0", 1)), "\\x00");
  EXPECT_EQ(printable("\xc2\x9b"
                      "31m"),
            "\\x9b"
            "31m")
      << "the one character that begins a sequence as ESC [ does";
}

TEST(Printable, AnErrorsMessageGoesOnBehindANameWithANul) {
  const std::string name("a\0b", 3);
  EXPECT_STREQ(Error(ErrorCode::not_found, name + ": not there, " + name).what(), "a\\x00b: not there, a\\x00b");
}

TEST(Printable, TextOfAnyLanguageStaysAsItIs) {
  const std::string text = "Größe \xc2\xa0 本 \\ 'x'";
  EXPECT_EQ(printable(text), text);
}

TEST(Printable, MessagesKeepTheirLinesAndSteerNoTerminal) {
  testing::internal::CaptureStderr();
  warn("one\n  two\x1b[2J");
  EXPECT_EQ(testing::internal::GetCapturedStderr(), "warning: one\n  two\\x1b[2J\n");
}

TEST(Printable, ANameWithAnEndOfLineBeginsNoMessageOfItsOwn) {
  testing::internal::CaptureStderr();
  warn("/tmp/a\nerror: b: not there\n");
  EXPECT_EQ(testing::internal::GetCapturedStderr(), "warning: /tmp/a\\nerror: b: not there\\n\n");
}

}  // namespace
}  // namespace cepe::base
