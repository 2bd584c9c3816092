#include "eval/paired.h"

#include <gtest/gtest.h>

#include <array>
#include <cmath>

#include "expect_error.h"

namespace cepe::eval {
namespace {

using base::ErrorCode;
using test::expect_error;

Measurement measured(const std::string& where, std::vector<DocumentNll> documents) {
  return {where, 2048, std::move(documents)};
}

const Measurement first_run = measured("a:1", {{"x", 2, 16}, {"y", 3, 16}, {"z", 1, 32}});

TEST(Paired, DifferencesAreTakenByIdWhateverTheOrder) {
  // y +0.5, x -0.2, z +0.3.
  const std::array second = {measured("b:1", {{"z", 1.3, 32}, {"y", 3.5, 16}, {"x", 1.8, 16}})};
  const PairedDifference found = paired_difference(first_run, second);
  EXPECT_EQ(found.documents, 3);
  EXPECT_EQ(found.unpaired, 0);
  EXPECT_NEAR(found.mean, 0.2, 1e-12) << "every document weighs the same";
  // Squares about the mean: 0.09 + 0.16 + 0.01.
  ASSERT_TRUE(found.standard_error);
  EXPECT_NEAR(*found.standard_error, std::sqrt(0.26 / 2 / 3), 1e-12);
}

TEST(Paired, WhatDiffersBetweenDocumentsCancels) {
  const std::array second = {measured("b:1", {{"x", 2.25, 16}, {"y", 3.25, 16}, {"z", 1.25, 32}})};
  const PairedDifference found = paired_difference(first_run, second);
  EXPECT_DOUBLE_EQ(found.mean, 0.25);
  EXPECT_DOUBLE_EQ(*found.standard_error, 0);
}

TEST(Paired, PerplexityChangesByTheExponentOfTheMean) {
  PairedDifference found;
  found.mean = std::log(1.2), found.standard_error = 0.01;
  EXPECT_NEAR(found.percent(), 20, 1e-9);
  EXPECT_NEAR(*found.percent_error(), 1.2, 1e-9);
  found.mean = std::log(0.9);
  EXPECT_NEAR(found.percent(), -10, 1e-9);
  EXPECT_NEAR(*found.percent_error(), 0.9, 1e-9);
}

TEST(Paired, OfSeveralMeasurementsEachDocumentCountsWithItsMean) {
  const std::array second = {measured("b:1", {{"x", 2, 16}, {"y", 4, 16}, {"z", 1, 32}}),
                             measured("c:1", {{"x", 4, 16}, {"y", 6, 16}, {"z", 1, 32}})};
  const PairedDifference found = paired_difference(first_run, second);
  EXPECT_DOUBLE_EQ(found.mean, (1.0 + 2.0 + 0.0) / 3);
  EXPECT_DOUBLE_EQ(*found.standard_error, std::sqrt(2.0 / 2 / 3)) << "over documents, not over measurements";
}

TEST(Paired, DocumentsThatAreNotInAllMeasurementsAreCountedAndLeftOut) {
  const std::array second = {measured("b:1", {{"x", 3, 16}, {"y", 9, 16}, {"w", 9, 16}}),
                             measured("c:1", {{"x", 3, 16}, {"z", 9, 32}, {"w", 9, 16}})};
  const PairedDifference found = paired_difference(first_run, second);
  EXPECT_EQ(found.documents, 1);
  EXPECT_EQ(found.unpaired, 3) << "w, y, z";
  EXPECT_DOUBLE_EQ(found.mean, 1);
  EXPECT_FALSE(found.standard_error) << "one document has none";
  EXPECT_FALSE(found.percent_error());
}

TEST(Paired, WhatCannotBePairedIsNamedWithItsPlace) {
  const auto refused = [](const std::string& text, const Measurement& second) {
    expect_error(ErrorCode::invalid_argument, text, [&] { paired_difference(first_run, std::span(&second, 1)); });
  };
  refused("b:7: document 'x' occurs twice", measured("b:7", {{"x", 1, 16}, {"x", 1, 16}}));
  refused("b:7: document 'z' has 16 target tokens, and 32 in a:1", measured("b:7", {{"z", 1, 16}}));
  const Measurement digested = measured("a:3", {{"x", 1, 16, "0f"}});
  const std::array others = {measured("b:7", {{"x", 1, 16, "0f"}}), measured("b:8", {{"x", 2, 16, "1e"}})};
  EXPECT_EQ(paired_difference(digested, std::span(others).first(1)).documents, 1);
  EXPECT_EQ(paired_difference(first_run, others).documents, 1) << "results without digests";
  expect_error(ErrorCode::invalid_argument, "b:8: document 'x' has other target tokens than in a:3",
               [&] { paired_difference(digested, others); });
  refused("a:1 and b:7: no document", measured("b:7", {{"w", 1, 16}}));
  const Measurement twice = measured("a:2", {{"x", 1, 16}, {"x", 1, 16}});
  expect_error(ErrorCode::invalid_argument, "a:2: document 'x' occurs twice",
               [&] { paired_difference(twice, std::span(&first_run, 1)); });
  expect_error(ErrorCode::invalid_argument, "nothing to compare", [] { paired_difference(first_run, {}); });
}

}  // namespace
}  // namespace cepe::eval
