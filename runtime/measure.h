// How long work on a device takes.
#pragma once

#include <functional>
#include <vector>

namespace spion {

class Device;

// 0 for no values. The mean of the middle two for an even number.
double median(std::vector<double> values);

// What one of `calls` calls takes on average, which follow each other on the device's own stream.
// Takes marks 0 and 1 of the device and waits for them.
double milliseconds_a_call(Device& device, int calls, const std::function<void()>& call);

// So many calls that they take `wanted_ms` together, if one takes `one_ms`: 1 to `most`.
int calls_for(double wanted_ms, double one_ms, int most);

}  // namespace spion
