// The three kinds of error, so that "your shape is wrong", "this machine cannot do it" and "our
// compiler is wrong" never look alike. The command maps them to exit codes 2, 2 and 3.
#pragma once

#include <fmt/format.h>

#include <stdexcept>
#include <string>
#include <utility>

namespace spion {

// The caller asked for something that is not allowed. The message names what was given, what is
// allowed and how to mend it, in one sentence.
class UserError : public std::runtime_error {
  public:
    template <typename... Args>
    explicit UserError(fmt::format_string<Args...> format, Args&&... args)
        : std::runtime_error(fmt::format(format, std::forward<Args>(args)...)) {}
};

// A kernel would have to be compiled, and the caller has said that none may be.
class FrozenError : public UserError {
  public:
    using UserError::UserError;
};

// The machine lacks a device, library, file or permission, or a device call failed.
class DeviceError : public std::runtime_error {
  public:
    template <typename... Args>
    explicit DeviceError(fmt::format_string<Args...> format, Args&&... args)
        : std::runtime_error(fmt::format(format, std::forward<Args>(args)...)) {}
};

// An invariant of spion itself is broken; the message asks for a report.
class InternalError : public std::logic_error {
  public:
    template <typename... Args>
    explicit InternalError(fmt::format_string<Args...> format, Args&&... args)
        : std::logic_error(fmt::format(format, std::forward<Args>(args)...) +
                           " (internal error: please report it with this message)") {}
};

}  // namespace spion
