// Launches that were captured from a stream, as a CUDA graph.
#pragma once

#include <functional>
#include <string>
#include <vector>

#include "runtime/cuda/driver_abi.h"
#include "runtime/cuda/launched_names.h"
#include "runtime/device.h"

namespace spion {

class CudaGraph : public LaunchGraph {
  public:
    // Captures what `enqueue` puts into `stream`, whose context must be current, from this thread: others
    // may go on compiling and loading. `launched`: where it notes the kernels. Throws DeviceError when the
    // driver refuses, and what it throws.
    CudaGraph(const driver_abi::Functions& functions, driver_abi::Context context,
              driver_abi::Stream stream, LaunchedNames& launched,
              const std::function<void()>& enqueue);
    ~CudaGraph() override;  // waits for the stream, which may be at it still
    // Throws InternalError for another device's.
    static const CudaGraph& of(const LaunchGraph& graph);
    CudaGraph(const CudaGraph&) = delete;
    CudaGraph& operator=(const CudaGraph&) = delete;

    // The context must be current. Returns the driver's failure.
    driver_abi::Result launch() const { return cuda_.cuGraphLaunch(executable_, stream_); }

    // Of the kernels in it: what a fault's message names.
    const std::vector<std::string>& entries() const { return entries_.names(); }

  private:
    const driver_abi::Functions& cuda_;
    driver_abi::Context context_;
    driver_abi::Stream stream_;
    driver_abi::GraphExec executable_ = nullptr;
    LaunchedNames entries_;
};

}  // namespace spion
