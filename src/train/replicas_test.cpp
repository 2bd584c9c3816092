// Several replicas of one model learn what one learns.
#include "train/replicas.h"

#include <ATen/Parallel.h>
#include <gtest/gtest.h>

#include "expect_error.h"
#include "training_runs.h"

namespace cepe::train {
namespace {

class ReplicasOfOneRun : public test::QuietTrainingRuns {
 protected:
  ReplicasOfOneRun() { at::set_num_threads(1); }  // replicas on one CPU would otherwise have a team of threads each

  // Two micro-batches a step: the sums of two replicas are then those of one, whatever the order.
  Recipe recipe(const std::string& output) const {
    Recipe recipe = recipe_of(output);
    for (PhaseSettings& phase : recipe.phases) {
      phase.micro_batch = 2;
      phase.others = 0.5, phase.other_tokens = 8, phase.short_context = 0.3;
    }
    recipe.optimiser.kind = "muon";
    return recipe;
  }

  static TrainOptions on(size_t replicas) {
    TrainOptions options;
    options.devices = std::vector<c10::Device>(replicas, c10::kCPU);
    return options;
  }
  static CheckpointState run(const Recipe& recipe, size_t replicas) {
    EXPECT_TRUE(train::train(recipe, on(replicas)).finished);
    return test::left_by(recipe);
  }
};

void expect_equal(const CheckpointState& a, const CheckpointState& b) {
  ASSERT_EQ(a.tensors.size(), b.tensors.size());
  for (size_t i = 0; i < a.tensors.size(); ++i)
    EXPECT_TRUE(a.tensors[i].second.equal(b.tensors[i].second)) << a.tensors[i].first;
}

TEST_F(ReplicasOfOneRun, TwoLearnWhatOneLearnsFromTheSameMicroBatches) {
  expect_equal(run(recipe("one"), 1), run(recipe("two"), 2));
}

TEST_F(ReplicasOfOneRun, ARunGoesOnWithAnotherNumberOfReplicas) {
  TrainOptions options = on(2);
  options.stop_after_seconds = 1e-9;  // one step
  EXPECT_EQ(train::train(recipe("resumed"), options).steps, 1);
  expect_equal(run(recipe("resumed"), 1), run(recipe("whole"), 1));
}

TEST_F(ReplicasOfOneRun, MicroBatchesThatCannotBeSharedAreRefused) {
  test::expect_error(base::ErrorCode::invalid_argument, "phases.0.micro_batch",
                     [&] { train::train(recipe("three"), on(3)); });
}

TEST_F(ReplicasOfOneRun, TheNewestCheckpointIsExportedWithoutTraining) {
  const Recipe stopped = recipe("exported");
  const base::Path result = base::Path(stopped.output) / "result";
  TrainOptions exporting = on(1), stopping = on(1);
  exporting.export_only = true;
  stopping.stop_after_seconds = 1e-9;
  test::expect_error(base::ErrorCode::not_found, "no checkpoint", [&] { train::train(stopped, exporting); });
  train::train(stopped, stopping);
  EXPECT_FALSE(std::filesystem::exists(result));
  EXPECT_EQ(train::train(stopped, exporting).steps, 1);
  EXPECT_TRUE(std::filesystem::exists(result));
}

}  // namespace
}  // namespace cepe::train
