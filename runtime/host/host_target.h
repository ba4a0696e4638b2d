// What the CPU offers.
#pragma once

#include <string>
#include <string_view>

#include "ir/target.h"

namespace spion {

// The widest vector instructions that kernels may use.
enum class HostVectors { kBest, kAvx2, kSse };

// "best", "avx2", "sse": the values of the environment variable SPION_HOST_FEATURES (unset or empty
// means best), for tests and for comparing; throws UserError that lists them.
HostVectors parse_host_vectors(std::string_view name);

// The CPU of this machine by LLVM's name and features, less the vector instructions above
// `vectors`; processors = threads.
Target host_target(HostVectors vectors, int threads);

// The same with the vector instructions that SPION_HOST_FEATURES allows; threads: 0 for
// thread_count() of runtime/threads.h. Throws as parse_host_vectors and thread_count.
Target this_host_target(int threads = 0);

// "AMD EPYC 9654", or LLVM's name of the CPU where the system does not say.
std::string cpu_model();

}  // namespace spion
