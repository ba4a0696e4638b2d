// What `spion inspect` knows of a folder, as plain values: read by read_run.h and read_kernels.h,
// computed by analyse.h, shown by page.h and text.h. What a folder lacks is empty here and named in
// Facts::absent.
#pragma once

#include <cstdint>
#include <optional>
#include <string>
#include <utility>
#include <vector>

#include "compiler/plan/cost_model.h"
#include "compiler/report.h"
#include "ir/head_patterns.h"
#include "ir/target.h"
#include "ir/tile_program.h"
#include "train/metrics.h"

namespace spion::inspect {

// A row of metrics.csv.
struct Measurement {
    std::int64_t step = 0;
    Phase phase = Phase::kDense;
    std::string split;  // "train", "validation", "test"
    double loss = 0;
    double accuracy = 0;  // in [0, 1]
    std::optional<double> learning_rate, step_ms;
    double seconds = 0;
};

struct TextFile {
    std::string name;
    std::string text;
};

// A kernel's folder.
struct KernelFacts {
    std::string name;
    std::string entry;
    std::string ir;                  // kernel.ir
    TextFile source;                 // kernel.cu or kernel.ll
    std::vector<TextFile> includes;  // texts that the source takes in
    std::vector<TextFile> outputs;   // kernel.ptx, kernel.sass, kernel.opt.ll, kernel.s, report.txt
    std::string rebuild;             // a shell line
    std::string tier;                // "0": tables are passed, "1": in the source; "" without
    std::string origin;              // "compiled", "disk", "memory"; "" when unknown
    std::optional<double> compile_ms, lookup_ms;
    std::optional<double> predicted_ms;  // of report.json
    std::int64_t binary_bytes = 0, code_bytes = 0;
    std::optional<int> registers, shared_bytes, spill_bytes;  // CUDA
    std::optional<double> occupancy;                          // of resident warps, CUDA
    std::vector<std::string> warnings;
};

// One tile program of a layer and what it costs.
struct ProgramFacts {
    TileProgram program;
    KernelWork work;        // of one sample
    Prediction prediction;  // of Facts::batch samples
    std::string kernel;     // name of the kernel that runs it, "" when no folder holds it
};

// A measured or predicted time against the two ceilings of the roofline.
struct RooflinePoint {
    std::string label;  // "layer 0 forward"
    int layer = 0;
    double flop = 0;
    double bytes = 0;  // every tensor once
    double seconds = 0;
    bool measured = false;         // else predicted
    Bound bound = Bound::kMemory;  // by the cost model
    double intensity() const { return flop / bytes; }
    double rate() const { return flop / seconds; }
};

// A pooled map [blocks, blocks] in the course of training.
struct MapFacts {
    std::int64_t step = 0;
    int blocks = 0;
    std::vector<double> pooled = {};
};

struct LayerFacts {
    int layer = 0;
    HeadPatterns patterns;  // one, or one a head
    // Of each pattern the map [nb, nb] that it was found in, or an empty one.
    std::vector<std::vector<double>> pooled;
    std::vector<MapFacts> history;  // ascending steps
    std::vector<ProgramFacts> programs;
    std::optional<double> forward_ms, backward_ms;  // measured
    Tables tables = Tables::kPassed;                // of its programs at the end: tier 0 or 1
    std::string tier;  // what became of tier 1, a sentence; "" when nothing was decided
};

struct Ceilings {
    double flop = 0;    // a second, of the unit that multiplies this dtype
    double memory = 0;  // bytes a second
    double cache = 0;   // bytes a second, from L2
    double attainable(double intensity) const {
        return intensity * memory < flop ? intensity * memory : flop;
    }
};

enum class FolderKind { kRun, kKernels };

struct Facts {
    FolderKind kind = FolderKind::kRun;
    std::string path;
    std::vector<std::pair<std::string, std::string>> settings;  // name, value as written
    std::vector<Measurement> measurements;

    std::string device, compiler;  // "" when unknown
    std::optional<Target> target;

    // summary.json
    bool ended = false;  // it is there
    bool interrupted = false;
    std::int64_t steps = 0, planned_steps = 0;
    std::optional<std::int64_t> transition_step;
    std::optional<double> stall_ms;  // between the last dense step and the first sparse one
    double dense_step_ms = 0, sparse_step_ms = 0;               // medians; 0 for none
    double dense_attention_ms = 0, sparse_attention_ms = 0;     // of a step; 0 when not recorded
    std::optional<std::pair<double, double>> validation, test;  // loss, accuracy
    std::int64_t peak_bytes = 0;
    int compiled = 0, from_disk = 0;

    std::int64_t batch = 1;  // samples of the times below
    std::vector<LayerFacts> layers;
    std::vector<KernelFacts> kernels;
    std::optional<Ceilings> ceilings;
    std::vector<RooflinePoint> roofline;

    std::vector<std::string> absent;    // a sentence each
    std::vector<std::string> findings;  // the answers, a sentence or two each
};

}  // namespace spion::inspect
