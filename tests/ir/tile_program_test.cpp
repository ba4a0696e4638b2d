#include "ir/tile_program.h"

#include <gtest/gtest.h>

#include <functional>
#include <string>
#include <vector>

#include "ir/error.h"
#include "tests/support/expect_error.h"

namespace spion {
namespace {

// L = 80 in blocks of 32: nb = 3, the last block 16 rows.
//     1 0 1
//     0 0 0
//     1 1 1
BlockPattern small_pattern() {
    return BlockPattern(80, 32, {1, 0, 1, 0, 0, 0, 1, 1, 1});
}

// Written by hand: tiles of 16 rows, two a block row; gather blocks of 16 rows, two a block.
TileProgram small_program() {
    return TileProgram{.role = KernelRole::kForward,
                       .attention = {.heads = 2,
                                     .head_dim = 16,
                                     .length = 80,
                                     .dtype = DType::kFp16,
                                     .scale = 0.25F,
                                     .softmax = SoftmaxKind::kMasked},
                       .block = 32,
                       .stationary_rows = 16,
                       .streamed_rows = 32,
                       .gather_rows = 16,
                       .warps = 1,
                       .stages = 2,
                       .order = {4, 0, 1, 2, 3},
                       .offsets = {0, 5, 8, 11, 11, 11},
                       .gather_blocks = {0, 1, 2, 3, 4, 0, 1, 4, 0, 1, 4}};
}

// The same pattern for dK/dV: by columns.
TileProgram small_transpose() {
    TileProgram program = small_program();
    program.role = KernelRole::kKeyValueGradient;
    program.order = {0, 1, 4, 2, 3};
    program.offsets = {0, 3, 6, 9, 10, 11};
    program.gather_blocks = {0, 1, 4, 0, 1, 4, 0, 1, 4, 4, 4};
    return program;
}

TEST(TileProgram, Prints) {
    EXPECT_EQ(to_text(small_program()),
              "program role=attention_forward\n"
              "attention H=2 D=16 L=80 dtype=fp16 scale=0.25 softmax=masked key_padding=false "
              "dropout=0\n"
              "shape block=32 stationary_rows=16 streamed_rows=32 gather_rows=16 warps=1 stages=2 "
              "unit=mma_sync tables=passed\n"
              "walk tiles=5 gather_blocks=11 longest=5 empty=2\n"
              "tile 4: 0..4\n"
              "tile 0: 0 1 4\n"
              "tile 1: 0 1 4\n"
              "tile 2:\n"
              "tile 3:\n");
}

TEST(TileProgram, PrintsASummaryWithoutTables) {
    const std::string whole = to_text(small_transpose());
    const std::string summary = to_text(small_transpose(), false);
    EXPECT_EQ(summary, whole.substr(0, whole.find("tile 0:")));
    EXPECT_NE(summary.find("role=attention_key_value_gradient"), std::string::npos);
}

TEST(TileProgram, RoleNamesAreEntrySymbols) {
    EXPECT_EQ(to_string(KernelRole::kForward), "attention_forward");
    EXPECT_EQ(to_string(KernelRole::kQueryGradient), "attention_query_gradient");
    EXPECT_EQ(to_string(KernelRole::kKeyValueGradient), "attention_key_value_gradient");
}

TEST(TileProgram, GoodProgramsVerify) {
    EXPECT_NO_THROW(verify(small_program(), small_pattern()));
    EXPECT_NO_THROW(verify(small_transpose(), small_pattern()));
    TileProgram gradient = small_program();
    gradient.role = KernelRole::kQueryGradient;
    EXPECT_NO_THROW(verify(gradient, small_pattern()));
}

TEST(TileProgram, RolesWalkTheirOwnSide) {
    TileProgram program = small_transpose();
    program.role = KernelRole::kForward;
    expect_error<InternalError>([&] { verify(program, small_pattern()); },
                                "tile 4 lacks gather block 2 of the pattern");
    program = small_program();
    program.role = KernelRole::kKeyValueGradient;
    expect_error<InternalError>([&] { verify(program, small_pattern()); },
                                "tile 4 streams gather block 2 outside the pattern");
}

// A full pattern is the same in whatever blocks, and those of 256 are of full patterns alone.
TEST(TileProgram, FullPatternsVerifyInOtherBlocks) {
    TileProgram program = small_program();
    program.attention.length = 300;
    program.block = program.stationary_rows = 256;
    program.streamed_rows = program.gather_rows = 64;
    program.warps = 16;
    program.classes = {};
    program.order = {0, 1};
    program.offsets = {0, 5, 10};
    program.gather_blocks = {0, 1, 2, 3, 4, 0, 1, 2, 3, 4};
    EXPECT_NO_THROW(verify(program, BlockPattern::full(300, 32)));
    expect_error<InternalError>([&] { verify(program, BlockPattern::empty(300, 32)); },
                                "block=256 was made for another pattern");
    program.offsets = {0, 5, 9};
    program.gather_blocks.pop_back();
    expect_error<InternalError>([&] { verify(program); },
                                "9 gather blocks for 2 tiles: in blocks of 256 each has all 5");
}

// A fault, and what verify says of it; with the pattern where only coverage can tell.
struct PlantedFault {
    std::function<void(TileProgram&)> plant;
    std::string message;
    bool needs_pattern = false;
};

void expect_caught(const PlantedFault& fault) {
    TileProgram program = small_program();
    fault.plant(program);
    if (fault.needs_pattern) {
        EXPECT_NO_THROW(verify(program)) << fault.message;
        expect_error<InternalError>([&] { verify(program, small_pattern()); }, fault.message);
    } else {
        expect_error<InternalError>([&] { verify(program); }, fault.message);
    }
}

TEST(TileProgram, ShapeFaultsAreCaught) {
    const std::vector<PlantedFault> faults = {
        {[](TileProgram& p) { p.attention.head_dim = 20; }, "head dimension 20"},
        {[](TileProgram& p) { p.block = 48; }, "block 48 is not 16, 32, 64 or 128"},
        {[](TileProgram& p) { p.stationary_rows = 0; }, "a walk without tiles"},
        {[](TileProgram& p) { p.stationary_rows = 24; }, "stationary_rows 24 does not divide"},
        {[](TileProgram& p) { p.gather_rows = 12; }, "gather_rows 12 does not divide block 32"},
        {[](TileProgram& p) { p.gather_rows = 0; }, "gather_rows 0"},
        {[](TileProgram& p) { p.streamed_rows = 24; }, "streamed_rows 24 is not a multiple of"},
        {[](TileProgram& p) { p.streamed_rows = 0; }, "streamed_rows 0"},
        {[](TileProgram& p) { p.warps = 0; }, "0 warps and 2 stages"},
        {[](TileProgram& p) { p.stages = 0; }, "1 warps and 0 stages"},
        {[](TileProgram& p) { p.warps = 2; }, "2 warps for 16 stationary rows"},
        {[](TileProgram& p) { p.stationary_rows = 33 * 32; }, "33 block rows in a tile, at most"},
        {[](TileProgram& p) { p.attention.dtype = DType::kFp32; }, "fp32 products on mma_sync"},
        {[](TileProgram& p) { p.unit = MatrixUnit::kWgmma; }, "wgmma with 1 warps"},
        {[](TileProgram& p) {
             p.unit = MatrixUnit::kMmaSyncTma;
             p.stationary_rows = 64;
         },
         "mma_sync_tma with 1 warps and stationary_rows 64"},
    };
    for (const PlantedFault& fault : faults) {
        expect_caught(fault);
    }
}

TEST(TileProgram, WalkFaultsAreCaught) {
    const std::vector<PlantedFault> faults = {
        {[](TileProgram& p) { p.order.pop_back(); }, "order has 4 tiles, L=80 in 16"},
        {[](TileProgram& p) { p.order[1] = 4; }, "work item 1 is tile 4 a second time"},
        {[](TileProgram& p) { p.order[2] = 5; }, "work item 2 is tile 5 out of range"},
        {[](TileProgram& p) { p.order[2] = -1; }, "work item 2 is tile -1 out of range"},
        {[](TileProgram& p) { p.offsets.pop_back(); }, "5 offsets do not span 5 work items"},
        {[](TileProgram& p) { p.offsets.clear(); }, "0 offsets"},
        {[](TileProgram& p) { p.offsets[0] = 1; }, "offsets do not span"},
        {[](TileProgram& p) { p.gather_blocks.push_back(0); }, "5 work items and 12 gather blocks"},
        {[](TileProgram& p) { p.offsets[2] = 4; }, "offsets decrease at work item 1"},
        {[](TileProgram& p) { p.gather_blocks[1] = 0; },
         "tile 4: gather block 0 follows 0, not ascending"},
        {[](TileProgram& p) { std::swap(p.gather_blocks[5], p.gather_blocks[6]); },
         "tile 0: gather block 0"},
        {[](TileProgram& p) { p.gather_blocks[5] = -1; }, "tile 0: gather block -1 follows -1"},
        {[](TileProgram& p) { p.gather_blocks[4] = 5; },
         "tile 4: gather block 5 starts beyond L=80"},
    };
    for (const PlantedFault& fault : faults) {
        expect_caught(fault);
    }
}

// Both block rows of a tile, the third one alone in the second tile; by hand.
TileProgram packed_program() {
    TileProgram program = small_program();
    program.stationary_rows = 64;
    program.gather_rows = 32;
    program.streamed_rows = 64;
    program.warps = 4;
    program.order = {1, 0};
    program.offsets = {0, 3, 5};
    program.gather_blocks = {0, 1, 2, 0, 2};
    program.block_row_masks = {1, 1, 1, 1, 1};
    program.classes = {RowClass::kDense, RowClass::kIrregular};
    return program;
}

TEST(TileProgram, PackedRowsAreCoveredBitByBit) {
    EXPECT_NO_THROW(verify(packed_program(), small_pattern()));
    const BlockPattern shared(80, 32, {1, 0, 1, 0, 0, 1, 1, 1, 1});
    TileProgram program = packed_program();
    program.block_row_masks = {1, 1, 1, 1, 3};
    EXPECT_NO_THROW(verify(program, shared));
    expect_error<InternalError>([&] { verify(program, small_pattern()); },
                                "tile 0 streams gather block 2 outside the pattern (block row 1)");
    expect_error<InternalError>([&] { verify(packed_program(), shared); },
                                "tile 0 lacks gather block 2 of the pattern (block row 1)");
    const std::vector<PlantedFault> faults = {
        {[](TileProgram& p) { p.block_row_masks.pop_back(); },
         "4 entries of bits for 5 gather blocks and 2 block"},
        {[](TileProgram& p) { p.block_row_masks.clear(); },
         "0 entries of bits for 5 gather blocks"},
        {[](TileProgram& p) { p.block_row_masks[3] = 0; },
         "tile 0: gather block 0 is used by no block row"},
        {[](TileProgram& p) { p.block_row_masks[3] = 4; },
         "tile 0: gather block 0 is used by a block row beyond"},
        {[](TileProgram& p) { p.classes.pop_back(); }, "1 row classes for 2 work items"},
        {[](TileProgram& p) { p.classes[1] = RowClass::kRuns; }, "tile 0 is classed runs, its"},
    };
    for (const PlantedFault& fault : faults) {
        program = packed_program();
        fault.plant(program);
        expect_error<InternalError>([&] { verify(program); }, fault.message);
    }
    // Block row 3 does not exist.
    program = packed_program();
    program.block_row_masks[0] = 3;
    program.classes[0] = row_class(program, 0);
    expect_error<InternalError>([&] { verify(program, small_pattern()); },
                                "tile 1 streams gather block 0 outside the pattern (block row 3)");
}

// L = 80 in blocks of 32, tiles and gather blocks of 16, causal: the diagonal is partial, and so is
// what lies above it within a block.
TileProgram causal_program() {
    TileProgram program = small_program();
    program.attention.mask = ElementMask::kCausal;
    program.attention.key_padding = false;
    program.order = {4, 3, 2, 1, 0};
    program.offsets = {0, 3, 5, 7, 9, 11};
    program.gather_blocks = {0, 1, 4, 2, 3, 2, 3, 0, 1, 0, 1};
    constexpr auto kFull = Coverage::kFull, kPartial = Coverage::kPartial;
    program.coverages = {kFull,    kFull, kPartial, kFull,    kPartial, kPartial,
                         kPartial, kFull, kPartial, kPartial, kPartial};
    program.classes.clear();
    return program;
}

TEST(TileProgram, GatherBlocksAreFullOrPartial) {
    EXPECT_NO_THROW(verify(causal_program()));
    EXPECT_NE(to_text(causal_program()).find("empty=0 partial=7\ntile 4: 0 1 4~\ntile 3: 2 3~\n"),
              std::string::npos)
        << to_text(causal_program());
    const std::vector<PlantedFault> faults = {
        {[](TileProgram& p) { p.coverages.pop_back(); }, "10 marks for 11 gather blocks"},
        {[](TileProgram& p) { p.coverages[1] = Coverage::kPartial; },
         "tile 4: gather block 1 is marked partial, it is full"},
        {[](TileProgram& p) { p.coverages[2] = Coverage::kFull; },
         "tile 4: gather block 4 is marked full, it is partial"},
        {[](TileProgram& p) { p.coverages[5] = Coverage::kEmpty; },
         "tile 2: gather block 2 is marked full, it is partial"},
        {[](TileProgram& p) { p.attention.key_padding = true; },
         "tile 4: gather block 0 is marked full, it is partial"},
    };
    for (const PlantedFault& fault : faults) {
        TileProgram program = causal_program();
        fault.plant(program);
        expect_error<InternalError>([&] { verify(program); }, fault.message);
    }
    // Keys stay, queries stream: below the diagonal is the other side.
    TileProgram columns = causal_program();
    columns.role = KernelRole::kKeyValueGradient;
    EXPECT_EQ(gather_block_coverage(columns, 4, 10), Coverage::kFull);    // keys 0, queries 16..31
    EXPECT_EQ(gather_block_coverage(columns, 0, 0), Coverage::kPartial);  // keys 64, queries 0
    // A gather block that reaches beyond L, and a tile that does.
    TileProgram ragged = small_program();
    ragged.attention.length = 79;
    ragged.attention.key_padding = false;
    ragged.order = {4};
    ragged.offsets = {0, 2};
    ragged.gather_blocks = {3, 4};
    EXPECT_EQ(gather_block_coverage(ragged, 0, 0), Coverage::kFull);
    EXPECT_EQ(gather_block_coverage(ragged, 0, 1), Coverage::kPartial);
    // Of a packed tile, all its block rows have to use it; block row 3 does not exist.
    TileProgram packed = packed_program();
    packed.attention.key_padding = false;
    EXPECT_EQ(gather_block_coverage(packed, 0, 0), Coverage::kFull);
    EXPECT_EQ(gather_block_coverage(packed, 1, 3), Coverage::kPartial);
    packed.block_row_masks[3] = 3;
    EXPECT_EQ(gather_block_coverage(packed, 1, 3), Coverage::kFull);
}

TEST(TileProgram, ABakedWalkOfFullBlocksIsFull) {
    TileProgram program = causal_program();
    program.order = {4};
    program.offsets = {0, 2};
    program.gather_blocks = {0, 1};
    program.coverages = {Coverage::kFull, Coverage::kFull};
    program.streamed_rows = program.gather_rows = 16;
    EXPECT_EQ(block_coverage(program), Coverage::kPartial) << "passed";
    EXPECT_EQ(step_coverage(program), Coverage::kPartial);
    program.tables = Tables::kBaked;
    EXPECT_EQ(block_coverage(program), Coverage::kFull);
    EXPECT_EQ(step_coverage(program), Coverage::kFull);
    program.streamed_rows = 64;
    EXPECT_EQ(step_coverage(program), Coverage::kPartial) << "half a step";
    program.coverages.clear();
    EXPECT_EQ(block_coverage(program), Coverage::kPartial) << "not marked";
}

// A gather block of two blocks is covered only where both are in the pattern.
TEST(TileProgram, GatherBlocksMayHoldSeveralBlocks) {
    const BlockPattern pattern(96, 16, {1, 1, 0, 0, 1, 1, 0, 0, 0, 0, 0, 0, 0, 0, 1, 1, 0, 0,
                                        0, 0, 0, 0, 0, 0, 0, 0, 0, 0, 0, 0, 0, 0, 0, 0, 1, 1});
    TileProgram program = small_program();
    program.attention.length = 96;
    program.block = 16;
    program.gather_rows = 32;
    program.order = {0, 1, 2, 3, 4, 5};
    program.offsets = {0, 2, 2, 3, 3, 3, 4};
    program.gather_blocks = {0, 2, 1, 2};
    EXPECT_NO_THROW(verify(program, pattern));
    std::vector<std::uint8_t> bits(36, 0);
    for (int at : {0, 1, 4, 5, 14, 15, 34}) {
        bits[static_cast<std::size_t>(at)] = 1;
    }
    expect_error<InternalError>([&] { verify(program, BlockPattern(96, 16, bits)); },
                                "tile 5 streams gather block 2 outside the pattern (block row 5)");
}

TEST(TileProgram, StepsAreFullOnlyWhereNoElementCanBeMissing) {
    TileProgram program;
    program.attention.length = 512;
    program.attention.key_padding = false;
    program.gather_rows = program.streamed_rows = 64;
    EXPECT_EQ(step_coverage(program), Coverage::kFull);
    program.attention.length = 500;  // the last step reaches beyond L
    EXPECT_EQ(step_coverage(program), Coverage::kPartial);
    program.attention.length = 512;
    program.attention.key_padding = true;  // lengths come with the launch
    EXPECT_EQ(step_coverage(program), Coverage::kPartial);
    program.attention.key_padding = false;
    program.streamed_rows = 128;  // the last step may have one gather block
    EXPECT_EQ(step_coverage(program), Coverage::kPartial);
}

TEST(TileProgram, RowsAreClassed) {
    TileProgram program = small_program();
    program.order = {0, 1, 2, 3, 4};
    program.offsets = {0, 0, 5, 8, 10, 14};
    program.gather_blocks = {0, 1, 2, 3, 4, 1, 2, 3, 0, 2, 0, 1, 3, 4};
    const std::vector<RowClass> expected = {RowClass::kEmpty, RowClass::kDense, RowClass::kBand,
                                            RowClass::kIrregular, RowClass::kRuns};
    for (int item = 0; item < program.tiles(); ++item) {
        EXPECT_EQ(row_class(program, item), expected[static_cast<std::size_t>(item)]) << item;
    }
    program = packed_program();
    program.block_row_masks = {1, 3, 3, 1, 1};  // the bits break the run: 1 + 2 gather blocks
    EXPECT_EQ(row_class(program, 0), RowClass::kIrregular);
}

TEST(TileProgram, CoverageFaultsAreCaught) {
    const std::vector<PlantedFault> faults = {
        {[](TileProgram& p) { p.gather_blocks[7] = 3; },
         "tile 0 streams gather block 3 outside the", true},
        {[](TileProgram& p) { std::swap(p.order[0], p.order[1]); }, "tile 0 streams gather block 2",
         true},
        {[](TileProgram& p) {
             p.gather_blocks.erase(p.gather_blocks.begin() + 6);
             p.offsets = {0, 5, 7, 10, 10, 10};
         },
         "tile 0 lacks gather block 1 of the pattern", true},
        {[](TileProgram& p) {
             p.gather_blocks.pop_back();
             p.offsets = {0, 5, 8, 10, 10, 10};
         },
         "tile 1 lacks gather block 4 of the pattern", true},
        {[](TileProgram& p) {
             p.gather_blocks.push_back(2);
             p.offsets.back() = 12;
         },
         "tile 3 streams gather block 2 outside the pattern", true},
        {[](TileProgram& p) { p.attention.length = 79; }, "L=79 block=32 was made for another",
         true},
    };
    for (const PlantedFault& fault : faults) {
        expect_caught(fault);
    }
}

}  // namespace
}  // namespace spion
