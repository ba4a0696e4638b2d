// `spion inspect`: what a run has learnt and what was generated for it, on one page or in text.
#include <memory>
#include <string>

#include "ir/error.h"
#include "runtime/atomic_file.h"
#include "runtime/output.h"
#include "tools/commands.h"
#include "tools/inspect/analyse.h"
#include "tools/inspect/page.h"
#include "tools/inspect/read_run.h"
#include "tools/inspect/text.h"

namespace spion {
namespace {

struct InspectOptions {
    std::string folder;
    std::string html;  // path of the page; empty for none
    bool text = false;
};

void run_inspect(const InspectOptions& options) {
    inspect::Facts facts = inspect::read_folder(options.folder);
    inspect::add_programs(facts);
    facts.findings = inspect::find_answers(facts);
    if (!options.html.empty()) {
        write_file(options.html, inspect::to_html(facts), "name a file that can with --html");
    }
    if (options.text || options.html.empty()) {
        write_out(inspect::to_text(facts, picture_columns(stdout_terminal())));
    } else {
        print_out("{}\n", options.html);
    }
}

}  // namespace

void add_inspect(CLI::App& app, int* /*exit_code: errors are thrown*/) {
    CLI::App* command = app.add_subcommand(
        "inspect", "Show what a run learnt, what was compiled for it and how near the limit it is");
    const auto options = std::make_shared<InspectOptions>();
    command
        ->add_option("folder", options->folder,
                     "a training run (spion train --out) or compiled kernels (spion compile -o)")
        ->required()
        ->type_name("RUN|DIR");
    command->add_option("--html", options->html, "write one page that opens without a network")
        ->type_name("FILE");
    command->add_flag("--text", options->text,
                      "print to the terminal (the default without --html)");
    command->callback([options] { run_inspect(*options); });
}

}  // namespace spion
