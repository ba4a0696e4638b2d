#include "runtime/measure.h"

#include <algorithm>
#include <cmath>

#include "runtime/device.h"

namespace spion {

double median(std::vector<double> values) {
    if (values.empty()) {
        return 0;
    }
    std::sort(values.begin(), values.end());
    const std::size_t middle = values.size() / 2;
    return values.size() % 2 == 1 ? values[middle] : (values[middle - 1] + values[middle]) / 2;
}

double milliseconds_a_call(Device& device, int calls, const std::function<void()>& call) {
    device.mark(0);
    for (int n = 0; n < calls; ++n) {
        call();
    }
    device.mark(1);
    return device.milliseconds_between(0, 1) / calls;
}

int calls_for(double wanted_ms, double one_ms, int most) {
    const double wanted = one_ms > 0 ? std::ceil(wanted_ms / one_ms) : 1;
    return static_cast<int>(std::clamp(wanted, 1.0, static_cast<double>(most)));
}

}  // namespace spion
