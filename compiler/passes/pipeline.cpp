#include "compiler/passes/pipeline.h"

#include <algorithm>
#include <chrono>
#include <optional>
#include <set>
#include <utility>

#include "compiler/passes/choose_tables.h"
#include "compiler/passes/classify_rows.h"
#include "compiler/passes/mark_coverage.h"
#include "compiler/passes/merge_gather_blocks.h"
#include "compiler/passes/order_work.h"
#include "compiler/passes/pack_rows.h"
#include "compiler/passes/set_shape.h"
#include "compiler/passes/walk_pattern.h"
#include "ir/error.h"
#include "ir/verify.h"

namespace spion {
namespace {

constexpr Pass kPipeline[] = {
    {"set_shape", set_shape, "tiles within one block"},
    {"walk_pattern", walk_pattern, "exactly the pattern's blocks, as gather blocks of each tile"},
    {"merge_gather_blocks", merge_gather_blocks,
     "gather blocks of several blocks where the shape asks"},
    {"pack_rows", pack_rows, "several block rows a tile where the shape asks"},
    {"classify_rows", classify_rows, "a row class for every work item"},
    {"order_work", order_work, "longest work items first"},
    {"mark_coverage", mark_coverage, "full or partial for every gather block"},
    {"choose_tables", choose_tables, "walk passed as tables or baked into the source"},
};

std::string known_names() {
    std::string names;
    for (const Pass& pass : kPipeline) {
        names += fmt::format("{}, ", pass.name);
    }
    return names + "or all";
}

bool is_known(std::string_view name) {
    return name == "all" || std::any_of(std::begin(kPipeline), std::end(kPipeline),
                                        [&](const Pass& pass) { return pass.name == name; });
}

}  // namespace

std::span<const Pass> pipeline() {
    return kPipeline;
}

TileProgram run_passes(std::span<const Pass> passes, TileProgram program,
                       const PassContext& context, const PassObserver& observer,
                       VerifyPasses verify_passes) {
    for (const Pass& pass : passes) {
        const std::optional<TileProgram> before =
            observer ? std::optional<TileProgram>(program) : std::nullopt;
        const auto start = std::chrono::steady_clock::now();
        program = pass.run(std::move(program), context);
        const std::chrono::duration<double, std::milli> elapsed =
            std::chrono::steady_clock::now() - start;
        if (observer) {
            observer({.pass = pass,
                      .before = *before,
                      .after = program,
                      .milliseconds = elapsed.count()});
        }
        if (verify_passes == VerifyPasses::kAfterEach) {
            if (const std::optional<Fault> fault = find_fault(program, &context.pattern)) {
                throw InternalError("after pass {}: {}", pass.name, fault->rule);
            }
        }
    }
    return program;
}

std::string to_text(const PassResult& result) {
    const std::string head =
        fmt::format("after {} ({:.3f} ms):", result.pass.name, result.milliseconds);
    return result.after == result.before ? fmt::format("{} (unchanged)\n", head)
                                         : fmt::format("{}\n{}", head, to_text(result.after));
}

PassObserver print_after(std::string_view names, std::function<void(std::string_view)> print) {
    std::set<std::string, std::less<>> wanted;
    for (bool more = true; more;) {
        const std::size_t comma = names.find(',');
        const std::string_view name = names.substr(0, comma);
        if (!is_known(name)) {
            throw UserError("pass '{}' is not known: use {}", name, known_names());
        }
        wanted.insert(std::string(name));
        more = comma != std::string_view::npos;
        names.remove_prefix(more ? comma + 1 : names.size());
    }
    return [wanted = std::move(wanted), print = std::move(print)](const PassResult& result) {
        if (wanted.count("all") != 0 || wanted.count(result.pass.name) != 0) {
            print(to_text(result));
        }
    };
}

}  // namespace spion
