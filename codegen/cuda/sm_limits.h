// What an SM has for the thread blocks that are resident on it, where it is the same on every
// architecture that the plans are for; what differs is in Rates (ir/target.h).
#pragma once

namespace spion {

constexpr int kRegistersOfSm = 65536;  // sm_80 to sm_120
constexpr int kSharedBytesOfSm90 = 228 * 1024;
constexpr int kReservedShared = 1024;  // bytes of a thread block's, by the driver

}  // namespace spion
