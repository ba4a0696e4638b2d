// The subcommands of `spion`. Each file tools/<name>.cpp defines one function that adds its options
// to the command line and a callback that runs it.
#pragma once

#include <CLI/CLI.hpp>

namespace spion {

// A callback returns by setting *exit_code (0 unless set); errors are thrown (ir/error.h) and
// mapped by main: UserError and DeviceError to one sentence on stderr and exit code 2,
// InternalError to 3.
void add_train(CLI::App& app, int* exit_code);
void add_sweep(CLI::App& app, int* exit_code);
void add_evaluate(CLI::App& app, int* exit_code);
void add_predict(CLI::App& app, int* exit_code);
void add_data(CLI::App& app, int* exit_code);
void add_discover(CLI::App& app, int* exit_code);
void add_compile(CLI::App& app, int* exit_code);
void add_inspect(CLI::App& app, int* exit_code);
void add_bundle(CLI::App& app, int* exit_code);
void add_verify(CLI::App& app, int* exit_code);
void add_bench(CLI::App& app, int* exit_code);
void add_cache(CLI::App& app, int* exit_code);
void add_doctor(CLI::App& app, int* exit_code);

}  // namespace spion
