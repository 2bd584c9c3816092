#include "engine/scheduler.h"

#include <gtest/gtest.h>

#include <map>
#include <memory>
#include <random>
#include <set>

#include "expect_error.h"

namespace cepe::engine {
namespace {

struct Bench {
  BlockPool pool;
  Scheduler scheduler;
  std::map<uint64_t, std::unique_ptr<Scheduled>> all;

  Bench(int64_t blocks, SchedulerOptions options) : pool(blocks), scheduler(options, pool) {}
  Scheduled& add(uint64_t age, int64_t length, int64_t priority = 0) {
    auto one = std::make_unique<Scheduled>();
    one->age = age, one->priority = priority, one->length = one->text = length;
    scheduler.add(*one);
    return *(all[age] = std::move(one));
  }
  // Rows by age of one step, carried out: who has read its text gets a token.
  std::map<uint64_t, int64_t> step() {
    std::map<uint64_t, int64_t> rows;
    for (const Scheduler::Piece& piece : scheduler.plan()) {
      Scheduled& one = *piece.sequence;
      EXPECT_GE(static_cast<int64_t>(one.blocks.size()) * 4, one.cached + piece.count) << "rows without a block";
      EXPECT_LE(piece.count, one.pending());
      rows[one.age] = piece.count;
      one.cached += piece.count;
      if (one.pending() == 0) ++one.length;
    }
    return rows;
  }
  void end(uint64_t age) {
    scheduler.remove(*all.at(age));
    all.erase(age);
  }
};

using Rows = std::map<uint64_t, int64_t>;

TEST(BlockPool, GivesNeighboursWhereItCanAndTheLowestElse) {
  BlockPool pool(6);
  EXPECT_EQ(pool.take(), 0);
  EXPECT_EQ(pool.take(0), 1);
  EXPECT_EQ(pool.take(0), 2) << "the one behind is taken";
  pool.give_back(0);
  EXPECT_EQ(pool.take(2), 3);
  EXPECT_EQ(pool.take(), 0);
  EXPECT_EQ(pool.free(), 2);
  EXPECT_EQ(pool.reach(), 4);
}

TEST(BlockPool, ASharedBlockIsFreeWhenItsLastReaderIsGone) {
  BlockPool pool(2);
  const int32_t block = pool.take();
  pool.share(block);
  pool.give_back(block);
  EXPECT_EQ(pool.free(), 1);
  pool.give_back(block);
  EXPECT_EQ(pool.free(), 2);
  EXPECT_THROW(pool.give_back(block), base::Error);
  EXPECT_THROW(pool.share(1), base::Error);
  pool.take();
  pool.take();
  EXPECT_THROW(pool.take(), base::Error);
}

TEST(BlockPool, ShrinksToWhatIsUsed) {
  BlockPool pool(9);
  for (int i = 0; i < 5; ++i) pool.take();
  EXPECT_THROW(pool.shrink(4), base::Error);
  pool.give_back(4);
  pool.shrink(4);
  EXPECT_EQ(pool.free(), 0);
  EXPECT_EQ(pool.reach(), 4);
}

TEST(Scheduler, DecodesBesideTextsThatAreReadInPieces) {
  Bench bench(100, {4, 8, 10});
  bench.add(0, 3);
  EXPECT_EQ(bench.step(), (Rows{{0, 3}}));
  bench.add(1, 25);
  EXPECT_EQ(bench.step(), (Rows{{0, 1}, {1, 9}}));
  EXPECT_EQ(bench.step(), (Rows{{0, 1}, {1, 9}}));
  EXPECT_EQ(bench.step(), (Rows{{0, 1}, {1, 7}}));
  EXPECT_EQ(bench.step(), (Rows{{0, 1}, {1, 1}}));
}

TEST(Scheduler, ALongTextDoesNotKeepShortOnesWaiting) {
  Bench bench(1000, {4, 8, 12});
  bench.add(0, 1000);
  bench.add(1, 6);
  bench.add(2, 4);
  EXPECT_EQ(bench.step(), (Rows{{0, 4}, {1, 4}, {2, 4}}));
  EXPECT_EQ(bench.step(), (Rows{{0, 5}, {1, 2}, {2, 1}})) << "what one leaves goes to those behind it";
}

TEST(Scheduler, AHigherPriorityReadsFirst) {
  Bench bench(1000, {4, 8, 12});
  bench.add(0, 30);
  bench.add(1, 20, 1);
  EXPECT_EQ(bench.step(), (Rows{{1, 12}}));
  EXPECT_EQ(bench.step(), (Rows{{1, 8}, {0, 4}}));
}

TEST(Scheduler, TheYoungestOfTheLowestPriorityLosesItsBlocks) {
  Bench bench(6, {4, 8, 100});
  Scheduled& old = bench.add(0, 7);
  Scheduled& young = bench.add(1, 7);
  Scheduled& lesser = bench.add(2, 3, -1);
  EXPECT_EQ(bench.step(), (Rows{{0, 7}, {1, 7}, {2, 3}}));
  bench.step();  // 8, 8, 4 rows: 5 blocks
  bench.step();  // the old one takes the sixth, the young one that of the lesser
  EXPECT_TRUE(lesser.blocks.empty());
  EXPECT_EQ(lesser.cached, 0);
  EXPECT_EQ(lesser.length, 5) << "what it generated is text to read again";
  EXPECT_EQ(young.cached, 9);
  for (int i = 0; i < 4; ++i) bench.step();
  EXPECT_TRUE(young.blocks.empty());
  EXPECT_EQ(old.cached, 13);
  EXPECT_GE(bench.scheduler.preemptions(), 2);
  bench.end(0);
  EXPECT_EQ(bench.step(), (Rows{{1, young.text + 6}, {2, 5}})) << "both read text and generated tokens again";
}

TEST(Scheduler, ARequestOfHigherPriorityTakesThePlaceOfARunningOne) {
  Bench bench(100, {4, 1, 100});
  Scheduled& low = bench.add(0, 5);
  bench.step();
  bench.add(1, 5, 3);
  EXPECT_EQ(bench.step(), (Rows{{1, 5}}));
  EXPECT_EQ(low.cached, 0);
  bench.end(1);
  EXPECT_EQ(bench.step(), (Rows{{0, 6}}));
}

TEST(Scheduler, FixedPiecesDependOnNobodyElse) {
  for (const bool crowded : {false, true}) {
    Bench bench(1000, {4, 8, 10, true});
    if (crowded) {
      bench.add(0, 3);
      bench.step();
      bench.add(1, 17);
    }
    Scheduled& one = bench.add(2, 24);
    std::vector<int64_t> pieces;
    for (int i = 0; i < 12; ++i) {
      const Rows rows = bench.step();
      if (rows.contains(2)) pieces.push_back(rows.at(2));
    }
    ASSERT_GE(pieces.size(), 5U);
    pieces.resize(5);
    EXPECT_EQ(pieces, (std::vector<int64_t>{10, 10, 4, 1, 1})) << crowded;
    bench.scheduler.preempt(one);
    EXPECT_EQ(bench.step()[2], 10);
    while (one.cached < one.text) bench.step();
    const int64_t before = one.cached;
    ASSERT_GT(one.pending(), 1);
    bench.step();
    EXPECT_EQ(one.cached, before + 1) << "generated tokens row by row, as they were";
  }
}

TEST(Scheduler, AForkReadsTheSameFullBlocks) {
  Bench bench(5, {4, 8, 100});
  Scheduled& one = bench.add(0, 6);
  bench.step();
  Scheduled other;
  other.age = 1, other.length = other.text = 6;
  ASSERT_TRUE(bench.scheduler.fork(other, one));
  EXPECT_EQ(other.blocks.front(), one.blocks.front());
  EXPECT_NE(other.blocks.back(), one.blocks.back()) << "one that is not full is written to";
  EXPECT_EQ(other.cached, 6);
  EXPECT_EQ(bench.pool.free(), 2);
  bench.end(0);
  EXPECT_EQ(bench.pool.free(), 3);
  bench.scheduler.remove(other);
  EXPECT_EQ(bench.pool.free(), 5);
}

TEST(Scheduler, AForkThatWaitsKeepsItsBlocksUntilOthersNeedThem) {
  Bench bench(5, {4, 2, 100});
  Scheduled& one = bench.add(0, 6);
  bench.step();
  Scheduled second, third;
  second.age = 1, third.age = 2;
  for (Scheduled* other : {&second, &third}) other->length = other->text = 6;
  ASSERT_TRUE(bench.scheduler.fork(second, one));
  ASSERT_FALSE(bench.scheduler.fork(third, one)) << "as many run as may";
  EXPECT_EQ(third.cached, 6);
  EXPECT_EQ(bench.pool.free(), 1);
  bench.scheduler.remove(second);
  const std::vector<Scheduler::Piece> pieces = bench.scheduler.plan();
  ASSERT_EQ(pieces.size(), 2U);
  EXPECT_EQ(pieces.back().sequence, &third);
  EXPECT_EQ(pieces.back().count, 0) << "nothing is to be read";

  Scheduled fourth;
  fourth.age = 3, fourth.length = fourth.text = 6;
  ASSERT_FALSE(bench.scheduler.fork(fourth, one));
  one.length = 16;
  EXPECT_EQ(bench.scheduler.plan().front().count, 10);
  EXPECT_EQ(fourth.cached, 0);
  EXPECT_EQ(third.cached, 6) << "who runs keeps them";
  bench.scheduler.remove(third);
  bench.scheduler.remove(fourth);
  bench.end(0);
  EXPECT_EQ(bench.pool.free(), 5);
}

// Whatever comes, everybody gets to the end, and no block is lost or read by two.
TEST(Scheduler, EverybodyEndsAndEveryBlockComesBack) {
  std::mt19937_64 random(9);
  for (int round = 0; round < 200; ++round) {
    const auto pick = [&](int64_t low, int64_t high) {
      return std::uniform_int_distribution<int64_t>(low, high)(random);
    };
    Bench bench(pick(5, 20), {4, pick(1, 6), pick(1, 30), pick(0, 1) == 1});
    std::map<uint64_t, int64_t> ends;
    uint64_t age = 0;
    int steps = 0;
    while (age < 12 || !bench.all.empty()) {
      ASSERT_LT(++steps, 5000) << "round " << round;
      if (age < 12 && (bench.all.empty() || pick(0, 2) == 0)) {
        const int64_t length = pick(1, 12);
        ends[age] = length + pick(1, 8);  // at most 20 rows: 5 blocks
        bench.add(age++, length, pick(-1, 1));
      }
      bench.step();
      std::set<int32_t> used;
      std::vector<uint64_t> ended;
      for (const auto& [its_age, one] : bench.all) {
        for (const int32_t block : one->blocks) EXPECT_TRUE(used.insert(block).second);
        if (one->length > ends.at(its_age)) ended.push_back(its_age);
      }
      EXPECT_EQ(static_cast<int64_t>(used.size()), bench.pool.count() - bench.pool.free());
      for (const uint64_t one : ended) bench.end(one);
    }
    EXPECT_EQ(bench.pool.free(), bench.pool.count());
  }
}

TEST(Scheduler, OptionsBelowOneAreRefused) {
  BlockPool pool(1);
  test::expect_error(base::ErrorCode::invalid_argument, "rows of a step", [&] { Scheduler({4, 8, 0}, pool); });
  test::expect_error(base::ErrorCode::invalid_argument, "sequences at one time", [&] { Scheduler({4, 0, 8}, pool); });
}

}  // namespace
}  // namespace cepe::engine
