// Attention's CUDA kernels of every family, to be compiled: by the tests for the NVRTC of this
// machine, and by nvrtc_matrix for any release.
#pragma once

#include <string>
#include <vector>

#include "codegen/emit.h"
#include "ir/target.h"

namespace spion::test {

struct CompileJob {
    std::string what;  // family and tile: "wgmma 128/64 x2", for the reader
    KernelSource source;
    EmittedGeometry geometry;
    Target target;
};
using CompileJobs = std::vector<CompileJob>;

// Every dtype, a head dimension of 16, 32, 64 and 128 and every role with the tile that is chosen.
// sm_90a gets all, the others a third each, so that sm_80, 86 and 89 see all between them; with
// `all`, every architecture gets everything.
CompileJobs chosen_jobs(const Target& target, bool all);
// Whether kernels of the unit come beside those of mma.sync and of fp32's units, on some GPUs.
constexpr bool is_special(MatrixUnit unit) {
    return unit != MatrixUnit::kVector && unit != MatrixUnit::kFma && unit != MatrixUnit::kMmaSync;
}
// Every tile of a special unit that its family has on the target: with the fewest stages, as these
// change addresses only, and packed where the block is too small. With `all`, each in both 16-bit
// types, both softmax kinds, with key padding and without. None where the target lacks the unit.
CompileJobs unit_jobs(MatrixUnit unit, const Target& target, bool all = false);
// Delta and all gradients together.
CompileJobs fused_backward_jobs(const Target& target);
// The head dimensions between: every kernel in a 16-bit type and one of them in a 4-byte type,
// spread over sm_80, 86, 90a and 120; with `all`, everything everywhere.
CompileJobs other_dimension_jobs(const Target& target, bool all);
// Dimensions that are padded, and others of V: every role and family on sm_80 and sm_90a.
CompileJobs padded_jobs(const Target& target);
// The score summary in every dtype.
CompileJobs summary_jobs(const Target& target);
// Tier 1, with rows of one length (constant trip counts) and of several.
CompileJobs baked_jobs(const Target& target);
// Packed tiles of single warps, with tables and baked: every role and head dimension with one
// number of block rows and one element type; with `all`, every one.
CompileJobs packed_jobs(const Target& target, bool all);
// Full patterns under a causal mask and under spans: every role, block and family, packed too; some
// with a bias by relative position.
CompileJobs masked_jobs(const Target& target);
// Dropout, softcap, slopes and sinks: every role, block and family, packed and under masks too. Or,
// `expressed`, a user's expressions alone.
CompileJobs changed_jobs(const Target& target, bool expressed);

}  // namespace spion::test
