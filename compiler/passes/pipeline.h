// The passes in the order they run, and what watches them.
#pragma once

#include <functional>
#include <span>
#include <string>
#include <string_view>

#include "compiler/passes/pass.h"

namespace spion {

// The table of all passes. After the last one the program is complete.
std::span<const Pass> pipeline();

// One pass has run.
struct PassResult {
    const Pass& pass;
    const TileProgram& before;
    const TileProgram& after;
    double milliseconds;
};
using PassObserver = std::function<void(const PassResult&)>;

enum class VerifyPasses { kNo, kAfterEach };
#ifdef NDEBUG
constexpr VerifyPasses kVerifyPassesByDefault = VerifyPasses::kNo;
#else
constexpr VerifyPasses kVerifyPassesByDefault = VerifyPasses::kAfterEach;
#endif

// Runs every pass of `passes` in order. observer: called after each, or empty. Throws InternalError
// naming the pass when its result breaks a rule and `verify_passes` asks to look.
TileProgram run_passes(std::span<const Pass> passes, TileProgram program,
                       const PassContext& context, const PassObserver& observer,
                       VerifyPasses verify_passes = kVerifyPassesByDefault);

// "after walk_pattern (0.013 ms):" and the program, or "after ... (0.001 ms): (unchanged)".
std::string to_text(const PassResult& result);

// What --print-after asks for: gives to_text of the passes that `names` lists, separated by commas
// ("all": every one), to `print`. Throws UserError listing the passes when a name is not known.
PassObserver print_after(std::string_view names, std::function<void(std::string_view)> print);

}  // namespace spion
