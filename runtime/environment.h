// Every environment variable that spion reads, in one table; nothing else calls getenv.
#pragma once

#include <optional>
#include <span>
#include <string>
#include <string_view>
#include <vector>

namespace spion {

struct EnvironmentVariable {
    std::string_view name;
    std::string_view allowed;  // its values: "0 or 1", "a folder"
    std::string_view meaning;  // one clause, with what holds where it is not set
};

// All of them: ours first, then those of others that are read too. `spion doctor` prints the table,
// docs/environment.md lists it.
std::span<const EnvironmentVariable> environment_variables();

// Its value; nullopt where it is unset or empty. Throws InternalError for a name that the table
// lacks.
std::optional<std::string> environment_value(std::string_view name);

// Whether it is 1; `otherwise` where it is unset or empty. Throws UserError for a value other than
// 0 and 1, InternalError as above.
bool environment_switch(std::string_view name, bool otherwise = false);

// Sets it for libraries that this process opens later, unless it is set. Throws as
// environment_value does.
void set_environment_default(std::string_view name, std::string_view value);

// Names that begin with SPION_ and are set, but not in the table (those of the tests, SPION_TEST_*,
// aside): most likely misspelt.
std::vector<std::string> unknown_environment_variables();

}  // namespace spion
