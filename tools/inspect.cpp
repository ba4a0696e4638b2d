// `spion inspect`: what a run has learnt and what was generated for it, on one page or in text; or
// several runs beside each other.
#include <memory>
#include <string>
#include <vector>

#include "ir/error.h"
#include "runtime/atomic_file.h"
#include "runtime/output.h"
#include "tools/commands.h"
#include "tools/inspect/analyse.h"
#include "tools/inspect/compare.h"
#include "tools/inspect/page.h"
#include "tools/inspect/read_run.h"
#include "tools/inspect/text.h"

namespace spion {
namespace {

struct InspectOptions {
    std::vector<std::string> folders;
    std::string html;  // path of the page; empty for none
    bool text = false;
};

void show(const InspectOptions& options, const std::string& html, const std::string& text) {
    if (!options.html.empty()) write_file(options.html, html, "name a file that can with --html");
    if (options.text || options.html.empty()) {
        write_out(text);
    } else {
        print_out("{}\n", options.html);
    }
}

void run_compare(const InspectOptions& options) {
    std::vector<inspect::Facts> runs;
    for (const std::string& folder : options.folders) {
        runs.push_back(inspect::read_folder(folder));
        if (runs.back().kind != inspect::FolderKind::kRun) {
            throw UserError(
                "{} holds compiled kernels, but only training runs are compared: name "
                "folders that `spion train --out` made",
                folder);
        }
    }
    show(options, inspect::compare_html(runs), inspect::compare_text(runs));
}

void run_inspect(const InspectOptions& options) {
    if (options.folders.size() > 1) return run_compare(options);
    inspect::Facts facts = inspect::read_folder(options.folders.front());
    inspect::add_programs(facts);
    facts.findings = inspect::find_answers(facts);
    show(options, inspect::to_html(facts),
         inspect::to_text(facts, picture_columns(stdout_terminal())));
}

}  // namespace

void add_inspect(CLI::App& app, int* /*exit_code: errors are thrown*/) {
    CLI::App* command = app.add_subcommand(
        "inspect", "Show what a run learnt, what was compiled for it and how near the limit it is");
    const auto options = std::make_shared<InspectOptions>();
    command
        ->add_option("folder", options->folders,
                     "a training run (spion train --out) or compiled kernels (spion compile -o); "
                     "or several runs, to compare them")
        ->required()
        ->type_name("RUN|DIR");
    command->add_option("--html", options->html, "write one page that opens without a network")
        ->type_name("FILE");
    command->add_flag("--text", options->text,
                      "print to the terminal (the default without --html)");
    command->callback([options] { run_inspect(*options); });
}

}  // namespace spion
