// The host as a device: memory is the process's, kernels run on worker threads before launch
// returns.
#pragma once

#include <memory>

#include "runtime/device.h"

namespace spion {

// threads: 0 for thread_count() of runtime/threads.h; fewer, after a line on stderr, where the
// system allows no more. Reads SPION_HOST_FEATURES (runtime/host/host_target.h). Throws UserError
// for a negative number of threads.
std::unique_ptr<Device> make_host_device(int threads = 0);

}  // namespace spion
