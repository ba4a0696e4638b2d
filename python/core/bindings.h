// The parts of the module spion._core.
#pragma once

#include <nanobind/nanobind.h>

namespace spion::python {

void bind_pattern(nanobind::module_& module);
void bind_plan(nanobind::module_& module);
void bind_operator(nanobind::module_& module);
void bind_offline(nanobind::module_& module);

}  // namespace spion::python
