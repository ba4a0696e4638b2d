// spion._core: the library's nouns for Python, one to one. What a reader of Python sees, with
// defaults, checks and documentation, is python/spion/.
#include <nanobind/nanobind.h>
#include <spion/spion.h>

#include "python/core/bindings.h"

namespace nb = nanobind;

namespace {

// The numbers of the softmax kinds, by name.
nb::dict softmax_numbers() {
    nb::dict numbers;
    for (const std::string_view name : spion::kSoftmaxNames) {
        numbers[nb::str(name.data(), name.size())] = static_cast<int>(*spion::softmax_named(name));
    }
    return numbers;
}

}  // namespace

NB_MODULE(_core, module) {
    // Contexts live until the interpreter ends, which is no leak.
    nb::set_leak_warnings(false);
    // The later a translator is registered the earlier it is asked.
    nb::exception<spion::Error>(module, "InternalError", PyExc_RuntimeError);
    nb::exception<spion::DeviceError>(module, "DeviceError", PyExc_RuntimeError);
    nb::exception<spion::Frozen>(module, "Frozen", PyExc_RuntimeError);
    nb::exception<spion::UserError>(module, "UserError", PyExc_ValueError);
    module.def("version", &spion_version);
    module.def("abi_version", &spion_abi_version);
    module.attr("SOFTMAXES") = softmax_numbers();
    spion::python::bind_pattern(module);
    spion::python::bind_plan(module);
    spion::python::bind_operator(module);
    spion::python::bind_offline(module);
}
