// spion._core: the library's nouns for Python, one to one. What a reader of Python sees, with
// defaults, checks and documentation, is python/spion/.
#include <nanobind/nanobind.h>
#include <spion/spion.h>

#include "python/core/bindings.h"

namespace nb = nanobind;

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
    spion::python::bind_pattern(module);
    spion::python::bind_plan(module);
    spion::python::bind_operator(module);
    spion::python::bind_offline(module);
}
