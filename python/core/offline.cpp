// What needs no device: stages of the compiler, and bundles.
#include <nanobind/nanobind.h>
#include <nanobind/stl/optional.h>
#include <nanobind/stl/string.h>
#include <nanobind/stl/vector.h>
#include <spion/spion.h>

#include <optional>
#include <string>
#include <utility>
#include <vector>

#include "python/core/bindings.h"

namespace spion::python {
namespace {

namespace nb = nanobind;

PlanOptions options_of(std::optional<Pattern> typical) {
    return {.typical = std::move(typical)};
}

// Bytes: a binary is no text.
nb::bytes emit_stage(const Attention& attention, const std::string& target, int kernel, int stage,
                     std::optional<Pattern> typical) {
    std::string made;
    {
        const nb::gil_scoped_release released;
        made = emit(attention, target, static_cast<Kernel>(kernel), static_cast<Stage>(stage),
                    options_of(std::move(typical)));
    }
    return nb::bytes(made.data(), made.size());
}

std::string explain_target(const Attention& attention, const std::string& target,
                           std::optional<Pattern> typical) {
    return explain(attention, target, options_of(std::move(typical)));
}

void bundle(const std::vector<Attention>& attentions, const std::vector<std::string>& targets,
            const std::string& path) {
    write_bundle(attentions, targets, path);
}

}  // namespace

void bind_offline(nb::module_& module) {
    using Released = nb::call_guard<nb::gil_scoped_release>;
    module.def("emit", &emit_stage, nb::arg(), nb::arg(), nb::arg(), nb::arg(), nb::arg().none());
    module.def("explain", &explain_target, nb::arg(), nb::arg(), nb::arg().none(), Released());
    module.def("write_bundle", &bundle, Released());
    module.def("check_bundle", &check_bundle, Released());
}

}  // namespace spion::python
