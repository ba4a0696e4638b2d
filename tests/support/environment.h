// Environment variables for a test, put back at its end.
#pragma once

#include <cstdlib>
#include <optional>
#include <string>

namespace spion {

// Sets (or, with nullopt, unsets) a variable for as long as it lives.
class Environment {
  public:
    Environment(const char* name, const std::optional<std::string>& value) : name_(name) {
        if (const char* old = std::getenv(name)) {
            old_ = old;
        }
        put(value);
    }
    ~Environment() { put(old_); }
    Environment(const Environment&) = delete;
    Environment& operator=(const Environment&) = delete;

  private:
    void put(const std::optional<std::string>& value) const {
        value ? setenv(name_, value->c_str(), 1) : unsetenv(name_);
    }
    const char* name_;
    std::optional<std::string> old_;
};

}  // namespace spion
