#include "runtime/cuda/cuda_graph.h"

#include <utility>

#include "ir/error.h"
#include "runtime/cuda/context_scope.h"
#include "runtime/cuda/driver.h"

namespace spion {

using driver_abi::kSuccess;

CudaGraph::CudaGraph(const driver_abi::Functions& functions, driver_abi::Context context,
                     driver_abi::Stream stream, LaunchedNames& launched,
                     const std::function<void()>& enqueue)
    : cuda_(functions), context_(context), stream_(stream) {
    check_driver(cuda_.cuStreamBeginCapture_v2(stream, driver_abi::kCaptureOfThread),
                 "beginning to capture launches");
    driver_abi::Graph graph = nullptr;
    std::swap(launched, entries_);  // what was launched before is kept apart
    try {
        enqueue();
        std::swap(launched, entries_);
    } catch (...) {
        std::swap(launched, entries_);
        // The stream is of use again only once its capture has ended.
        if (cuda_.cuStreamEndCapture(stream, &graph) == kSuccess) cuda_.cuGraphDestroy(graph);
        throw;
    }
    check_driver(cuda_.cuStreamEndCapture(stream, &graph), "capturing launches");
    const auto result = cuda_.cuGraphInstantiateWithFlags(&executable_, graph, 0);
    cuda_.cuGraphDestroy(graph);
    check_driver(result, "making a graph of captured launches");
}

CudaGraph::~CudaGraph() {
    try {
        const ContextScope scope(cuda_, context_);
        cuda_.cuStreamSynchronize(stream_);
        cuda_.cuGraphExecDestroy(executable_);
    } catch (const DeviceError&) {
        // The driver is gone, and the graph with it.
    }
}

const CudaGraph& CudaGraph::of(const LaunchGraph& graph) {
    const auto* captured = dynamic_cast<const CudaGraph*>(&graph);
    if (captured == nullptr) throw InternalError("a graph was not captured by a GPU");
    return *captured;
}

}  // namespace spion
