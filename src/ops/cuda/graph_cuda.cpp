#include <ATen/cuda/CUDAGraph.h>
#include <c10/cuda/CUDAGuard.h>
#include <c10/cuda/CUDAStream.h>

#include <memory>

#include "ops/cuda/table.h"

namespace cepe::ops::cuda {
namespace {

struct Graph {
  c10::DeviceIndex device = 0;
  at::cuda::CUDAGraph graph;
};

// Ends the recording on every way out: a device left recording refuses all further work.
class Recording {
 public:
  explicit Recording(at::cuda::CUDAGraph& graph) : graph_(graph) { graph_.capture_begin(); }
  void end() {
    open_ = false;
    graph_.capture_end();
  }
  ~Recording() {
    if (!open_) return;
    try {
      graph_.capture_end();
    } catch (const std::exception&) {  // the reason why it is left is on its way already
    }
  }

 private:
  at::cuda::CUDAGraph& graph_;
  bool open_ = true;
};

}  // namespace

void* record_graph(int device, const std::function<void()>& work) {
  const auto index = static_cast<c10::DeviceIndex>(device);
  const c10::cuda::CUDAGuard guard(index);
  c10::cuda::getCurrentCUDAStream(index).synchronize();  // what was asked for before
  const c10::cuda::CUDAStream stream = c10::cuda::getStreamFromPool(false, index);
  const c10::cuda::CUDAStreamGuard on_stream(stream);
  work();
  stream.synchronize();
  auto graph = std::make_unique<Graph>();
  graph->device = index;
  Recording recording(graph->graph);
  work();
  recording.end();
  return graph.release();
}

void replay_graph(void* graph) {
  auto* recorded = static_cast<Graph*>(graph);
  const c10::cuda::CUDAGuard guard(recorded->device);
  recorded->graph.replay();
}

void destroy_graph(void* graph) {
  const std::unique_ptr<Graph> recorded(static_cast<Graph*>(graph));
  const c10::cuda::CUDAGuard guard(recorded->device);
  c10::cuda::getCurrentCUDAStream(recorded->device).synchronize();  // it may be running
}

}  // namespace cepe::ops::cuda
