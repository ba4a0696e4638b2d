// A kernel family: bodies that compute attention in one way, and everything that the compiler has to
// know about them. Each is one value in one table (codegen/kernel_families.h); nothing outside its
// own files knows what a family can do.
//
// The table is an argument wherever it is read, so that a test can plan with one of its own.
#pragma once

#include <optional>
#include <span>
#include <string>
#include <string_view>
#include <vector>

#include "codegen/kernel_constant.h"
#include "codegen/kernel_cost.h"
#include "codegen/kernel_plan.h"
#include "ir/attention.h"
#include "ir/target.h"
#include "ir/tile_program.h"

namespace spion {

// One launch of an operation, for which kernels are sought. Holds references: make it in place.
struct KernelCase {
    const Attention& attention;
    KernelRole role;
    int block;  // the pattern's
    const Target& target;
    const Rates& rates;  // the target's, or a test's
};

// The launch of a program, which outlives the result as `rates` does.
KernelCase case_of(const TileProgram& program, const Target& target, const Rates& rates);

struct KernelFamily {
    std::string_view name;  // for people: "wgmma on sm_90a"
    std::string_view mark;  // behind a tile shape in a table: "wgmma"; "" for the general family

    // Whether it has a body for the role.
    bool (*computes)(KernelRole role);
    // Whether the target multiplies elements of `dtype` with `unit` in this family's kernel of the
    // role.
    bool (*multiplies)(KernelRole role, MatrixUnit unit, DType dtype, const Target& target);
    // Why it cannot compute this launch, as a clause that says what it takes; "" when it can.
    std::string (*why_not)(const KernelCase& launch);
    // What to do where it cannot, for people.
    std::string_view instead = "name another target";
    // Every tile shape within a block row that is worth a prediction. why_not() has no reason.
    std::vector<TileShape> (*shapes)(const KernelCase& launch);
    // The shape that was measured to be good; nullopt where none of them fits.
    std::optional<TileShape> (*measured)(const KernelCase& launch);
    // That shape is good on many work items only: where another is predicted to be faster by more
    // than the model's margin, the next family's measured shape is asked for.
    bool measured_on_many_items = false;

    // What a full pattern, in the launch's blocks, is best cut into, as it is the same pattern
    // whatever its blocks. Null: they stay.
    int (*full_block)(const KernelCase& launch) = nullptr;

    // Most block rows that one tile can hold: 1 where tiles are not packed.
    int (*most_packed_rows)(int block);
    // Whether to pack can save anything; else tiles are packed when asked for alone.
    bool packing_can_pay;
    // The same as shapes() for tiles of `packed_rows` block rows, at least 2; none where it cannot,
    // whatever why_not() says of tiles that are not packed.
    std::vector<TileShape> (*packed_shapes)(const KernelCase& launch, int packed_rows);
    // What a packed tile takes, over what the cost model's terms add up to.
    double (*packing_overhead)(const KernelCase& launch, const TileShape& shape);

    // Why no body can run the program, which verifies and may be from a file, as a clause ("it
    // has .."); "" when one can.
    std::string (*why_not_program)(const TileProgram& program, const Target& target);
    // How the kernel divides an SM; `problem` where it does not fit.
    KernelPlan (*plan)(const KernelCase& launch, const TileShape& shape);
    // What its bodies do otherwise than the role alone says: walk twice, stream nothing. Null: no
    // more and no less.
    void (*adjust)(KernelLoad& load) = nullptr;
    SmTime (*time)(const KernelLoad& load);
    // Hardware brings streamed rows, whatever is in flight: bandwidths are reached at once.
    bool prefetched_by_hardware = false;
    // All rows of a tile are multiplied alike; else its warps leave out what they do not use.
    bool multiplies_whole_tiles = false;

    // The body's file (kernels/cuda/ or kernels/host/), less its extension, and its constants beside
    // the operation's and the tile's.
    std::string (*body)(KernelRole role, const KernelPlan& plan);
    std::vector<Constant> (*constants)(const TileProgram& program, const KernelPlan& plan);
};

// What several families say alike.
bool computes_split_backward(KernelRole role);  // the three roles of kSplitBackwardRoles
int one_block_row(int block);                   // 1: tiles are not packed
std::vector<TileShape> no_packed_shapes(const KernelCase& launch, int packed_rows);
double no_packing_overhead(const KernelCase& launch, const TileShape& shape);  // 1

using KernelFamilies = std::span<const KernelFamily* const>;

// The families that have a body for the role, in the table's order.
std::vector<const KernelFamily*> families_for(KernelRole role, KernelFamilies families);
// The one whose kernels multiply so; nullptr when there is none.
const KernelFamily* family_of(KernelRole role, MatrixUnit unit, DType dtype, const Target& target,
                              KernelFamilies families);

// A kernel as it is emitted, loaded and launched.
struct PlannedKernel {
    const KernelFamily* family = nullptr;
    KernelPlan plan = {};
};
// Of a program that nobody has planned: from a file, or a test's. Throws UserError that says why it
// cannot run on the target.
PlannedKernel plan_kernel(const TileProgram& program, const Target& target,
                          KernelFamilies families);
// Why not, as a clause; "" when it can.
std::string why_not_program(const TileProgram& program, const Target& target,
                            KernelFamilies families);

}  // namespace spion
