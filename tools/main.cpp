// The `spion` command. How it ends is a table in tools/exit_codes.h.
#include <fmt/core.h>

#include <exception>
#include <new>
#include <sstream>
#include <stdexcept>
#include <string_view>
#include <system_error>

#include "ir/error.h"
#include "runtime/output.h"
#include "tools/command_line.h"
#include "tools/commands.h"
#include "tools/exit_codes.h"

namespace spion {
namespace {

constexpr std::string_view kExamples = R"(
Examples:
  spion train listops --preset demo --out runs/demo
  spion discover scores.npy --block 64 --quantile 0.98 --format art
  spion compile --pattern layer0.bits --block 64 --heads 2 --head-dim 32 --target sm_90a -o out
  spion verify --pattern layer0.bits --block 64 --length 2048 --heads 2 --head-dim 32
  spion bench attention --pattern-random 0.05 --block 64 --length 2048 --head-dim 32
  spion inspect runs/demo --html demo.html
  spion doctor

`spion COMMAND --help` lists a command's options.

Exit codes:
)";

// The order of the walk. A command is one line here, one in commands.h and one file.
void add_commands(CLI::App& app, int* exit_code) {
    add_train(app, exit_code);
    add_sweep(app, exit_code);
    add_evaluate(app, exit_code);
    add_predict(app, exit_code);
    add_data(app, exit_code);
    add_discover(app, exit_code);
    add_compile(app, exit_code);
    add_inspect(app, exit_code);
    add_bundle(app, exit_code);
    add_verify(app, exit_code);
    add_bench(app, exit_code);
    add_cache(app, exit_code);
    add_doctor(app, exit_code);
}

std::string footer() {
    std::string text(kExamples);
    for (const auto& [code, meaning] : kExitCodes) {
        text += fmt::format("  {:<4} {}\n", static_cast<int>(code), meaning);
    }
    text.pop_back();
    return text;
}

int fail(int exit_code, std::string_view sentence) {
    say("spion: {}\n", sentence);
    return exit_code;
}

// What --help and --version print.
int print_asked(const CLI::Success& asked, const CLI::App& app) {
    std::ostringstream out;
    app.exit(asked, out, out);
    write_out(out.view());
    return kDone;
}

int run_command(int argc, char** argv) {
    CLI::App app{"spion trains Transformers with block-sparse attention compiled for each pattern.",
                 "spion"};
    app.set_version_flag("--version", "spion " SPION_VERSION);
    app.footer(footer());
    app.failure_message(CLI::FailureMessage::simple);
    app.option_defaults()->take_last();  // of an option that is given again, as in other commands
    int exit_code = 0;
    add_commands(app, &exit_code);
    if (argc < 2) {
        write_out(app.help());
        return 0;
    }
    try {
        app.parse(argc, argv);
    } catch (const CLI::Success& success) {
        return print_asked(success, app);
    } catch (const CLI::ParseError& error) {
        return fail(kRefused, describe(error, app));
    }
    return exit_code;
}

int run_and_report(int argc, char** argv) {
    try {
        return run_command(argc, argv);
    } catch (const UserError& error) {
        return fail(kRefused, error.what());
    } catch (const DeviceError& error) {
        return fail(kRefused, error.what());
    } catch (const std::bad_alloc&) {
        return fail(kRefused, "out of memory on the host; ask for a smaller problem");
    } catch (const std::length_error&) {
        return fail(kRefused, "a size is beyond what memory can hold; ask for a smaller problem");
    } catch (const std::system_error& error) {
        return fail(kRefused, fmt::format("the system refused: {}", error.what()));
    } catch (const std::exception& error) {
        return fail(kFault, error.what());
    } catch (...) {
        return fail(kFault,
                    "something was thrown that is no exception of ours (internal error: "
                    "please report it with this message)");
    }
}

}  // namespace
}  // namespace spion

int main(int argc, char** argv) {
    spion::prepare_output();
    const int exit_code = spion::run_and_report(argc, argv);
    const auto problem = spion::finish_out();
    return problem && exit_code == spion::kDone ? spion::fail(spion::kRefused, *problem)
                                                : exit_code;
}
