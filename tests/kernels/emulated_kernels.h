// The kernels that the emission tool wrote and the build compiled for the host.
#pragma once

#include <string_view>

#include "kernels/attention_arguments.h"

namespace spion {

using EmulatedKernel = void (*)(const SpionAttentionArguments&);

// `name`: a case's or summary's; `entry`: "attention_forward", ... Throws InternalError if unknown.
EmulatedKernel find_emulated(std::string_view name, std::string_view entry);

}  // namespace spion
