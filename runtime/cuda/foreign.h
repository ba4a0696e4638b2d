// What callers bring along, as the driver knows it: addresses of their memory and their streams.
#pragma once

#include <cstddef>

#include "runtime/cuda/driver.h"

namespace spion {

// What is wrong with `data` for kernels of `context` on `device`, as a clause ("is memory of
// another GPU"); "" when nothing is known to be.
const char* problem_with_foreign_memory(const driver_abi::Functions& cuda,
                                        driver_abi::Context context, driver_abi::Device device,
                                        const void* data);

// Throws UserError when the stream is of another context than `context`. To be asked when the
// driver has refused a launch, as it costs a call.
void check_foreign_stream(const driver_abi::Functions& cuda, driver_abi::Context context,
                          driver_abi::Stream stream);

// Waits for the stream and copies what lies on the device then. `context` is current. Throws
// UserError when the stream is being captured in a graph, or is of another context.
void read_in_order(const driver_abi::Functions& cuda, driver_abi::Context context,
                   driver_abi::Stream stream, void* host, const void* device, std::size_t bytes);

}  // namespace spion
