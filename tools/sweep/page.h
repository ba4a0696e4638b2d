// A sweep as one HTML page: style, script and pictures inside, nothing fetched.
#pragma once

#include <string>
#include <vector>

#include "tools/sweep/plan.h"
#include "tools/sweep/results.h"

namespace spion::sweep {

// name: of the sweep. results: [runs], which `rows` are made of.
std::string to_html(const std::string& name, const Plan& plan,
                    const std::vector<RunResult>& results, const std::vector<Row>& rows);

}  // namespace spion::sweep
