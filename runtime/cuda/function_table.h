// A struct of function pointers made from one list of names and types, so that declaring a
// function, loading it and testing its declaration cannot disagree.
#pragma once

#include <string>

#include "runtime/cuda/shared_library.h"

#define SPION_DECLARE_FUNCTION(name, ...) \
    using name##Type = __VA_ARGS__;       \
    name##Type* name = nullptr;

#define SPION_LOAD_FUNCTION(name, ...)                           \
    name = reinterpret_cast<name##Type*>(library.symbol(#name)); \
    if (name == nullptr) {                                       \
        return #name;                                            \
    }

// Defines `struct Functions` with a pointer `name` of type `nameType*` for every X(name, type) of
// LIST. `load` returns "" or the name of the first function that the library lacks.
#define SPION_FUNCTION_TABLE(LIST)                       \
    struct Functions {                                   \
        LIST(SPION_DECLARE_FUNCTION)                     \
        std::string load(const SharedLibrary& library) { \
            LIST(SPION_LOAD_FUNCTION)                    \
            return {};                                   \
        }                                                \
    };
