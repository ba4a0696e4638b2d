// A kernel family and a target that nobody has: planned, explained, emitted, loaded and launched by
// code that knows neither. Nothing but this file says what the family can do.
#include <gtest/gtest.h>

#include <cstring>

#include "codegen/emit.h"
#include "codegen/kernel_families.h"
#include "compiler/compile_attention.h"
#include "compiler/plan/layer_plan.h"
#include "ir/error.h"
#include "tests/support/expect_error.h"
#include "tests/support/fake_device.h"

namespace spion {
namespace {

constexpr int kThreads = 96, kShared = 4321, kResident = 3, kBlock = 64;

Target made_up_target() {
    return {.back_end = BackEnd::kCuda,
            .arch = "sm_999x",
            .features = "",
            .compute_capability = 999,
            .sm_count = 7,
            .shared_bytes_per_block = 100000};
}

bool computes(KernelRole role) {
    return role == KernelRole::kForward;
}

bool multiplies(KernelRole /*role*/, MatrixUnit unit, DType dtype, const Target& target) {
    return unit == MatrixUnit::kWgmma && dtype == DType::kBf16 && target.arch == "sm_999x";
}

std::string why_not(const KernelCase& launch) {
    return multiplies(launch.role, MatrixUnit::kWgmma, launch.attention.dtype, launch.target) &&
                   launch.block == kBlock
               ? ""
               : "the made-up family takes bf16 and blocks of 64 on sm_999x";
}

TileShape shape_with(int stages) {
    return {.stationary_rows = kBlock,
            .streamed_rows = kBlock,
            .gather_rows = kBlock,
            .warps = 4,
            .stages = stages,
            .unit = MatrixUnit::kWgmma};
}

KernelPlan plan_of(const KernelCase& /*launch*/, const TileShape& shape) {
    if (shape.stages > 5) {
        return {.problem = "it has five stages at most", .blocks = 0};
    }
    return {.columns = kBlock,
            .registers = 100,
            .shared_bytes = kShared,
            .blocks = kResident,
            .occupancy = 0.5,
            .geometry = {.threads = kThreads, .shared_bytes = kShared}};
}

// The more stages the faster, and faster than anything else.
SmTime time_of(const KernelLoad& load) {
    return {.compute_seconds = 1e-9 / load.shape.stages, .bound = Bound::kExponentials};
}

const KernelFamily kMadeUp{
    .name = "a family of this test",
    .mark = "made-up",
    .computes = computes,
    .multiplies = multiplies,
    .why_not = why_not,
    .shapes =
        [](const KernelCase&) {
            return std::vector{shape_with(4), shape_with(5), shape_with(6)};
        },
    .measured = [](const KernelCase&) { return std::optional(shape_with(4)); },
    .most_packed_rows = [](int) { return 1; },
    .packing_can_pay = false,
    .packed_shapes = [](const KernelCase&, int) { return std::vector<TileShape>{}; },
    .packing_overhead = [](const KernelCase&, const TileShape&) { return 1.0; },
    .why_not_program =
        [](const TileProgram& program, const Target&) {
            return program.stages > 5 ? std::string("it has more than five stages") : "";
        },
    .plan = plan_of,
    .time = time_of,
    .body = [](KernelRole, const KernelPlan&) { return std::string("sm80/attention_forward"); },
    .constants =
        [](const TileProgram&, const KernelPlan& plan) {
            return std::vector{integer("kMadeUpRegisters", plan.registers, "a thread")};
        }};

std::vector<const KernelFamily*> table() {
    std::vector<const KernelFamily*> families{&kMadeUp};
    families.insert(families.end(), kernel_families().begin(), kernel_families().end());
    return families;
}

Attention attention_of(DType dtype = DType::kBf16) {
    return {.heads = 2, .head_dim = 64, .length = 1024, .dtype = dtype, .scale = 0.125F};
}

const BlockPattern kPattern = BlockPattern::full(1024, kBlock);

TEST(MadeUpFamily, IsPlannedWhereItCan) {
    const auto families = table();
    const Target target = made_up_target();
    const LayerPlan plan = plan_layer(attention_of(), kPattern, target, {}, families);
    const LaunchPlan& forward = plan.launches[0];
    EXPECT_EQ(forward.kernel.family, &kMadeUp);
    EXPECT_EQ(forward.shape, shape_with(4));  // measured, and 5 stages are not clearly faster
    EXPECT_EQ(forward.kernel.plan, plan_of(KernelCase{attention_of(), KernelRole::kForward, kBlock,
                                                      target, rates_of(target)},
                                           forward.shape));
    ASSERT_TRUE(forward.prediction);
    // The other roles have kernels of the general family.
    EXPECT_EQ(plan.launches[1].shape.unit, MatrixUnit::kMmaSync);
    EXPECT_EQ(plan.launches[2].shape.unit, MatrixUnit::kMmaSync);
    // Not on other targets, nor for other elements.
    for (const auto& [other, dtype] :
         {std::pair{cuda_target(90), DType::kBf16}, std::pair{target, DType::kTf32}}) {
        const LayerPlan without = plan_layer(attention_of(dtype), kPattern, other, {}, families);
        EXPECT_NE(without.launches[0].kernel.family, &kMadeUp);
    }
    EXPECT_NE(plan_layer(attention_of(), kPattern, target).launches[0].kernel.family, &kMadeUp);
}

TEST(MadeUpFamily, ItsRivalsSayWhyTheyLost) {
    const auto families = table();
    const LayerPlan plan = plan_layer(attention_of(), kPattern, made_up_target(), {}, families);
    const LaunchPlan& forward = plan.launches[0];
    ASSERT_EQ(forward.rivals.size() + 1, forward.candidates.size());
    double before = 0;
    std::size_t of_family = 0;
    for (const Rival& rival : forward.rivals) {
        const TileCandidate& candidate = forward.candidates.at(rival.candidate);
        EXPECT_FALSE(candidate.shape == forward.shape);
        of_family += candidate.family == &kMadeUp ? 1 : 0;
        if (candidate.shape == shape_with(6)) {
            EXPECT_EQ(rival.lost, "it cannot run: it has five stages at most");
        } else if (candidate.prediction) {
            EXPECT_EQ(rival.lost.find("it is predicted "), 0U) << rival.lost;
            EXPECT_GE(candidate.prediction->seconds, before);
            before = candidate.prediction->seconds;
        }
    }
    EXPECT_EQ(of_family, 2U);
    const std::string text = explain(plan, forward, kPattern);
    EXPECT_NE(text.find("* 64/64 x4 made-up"), std::string::npos) << text;
    EXPECT_NE(text.find("64/64 x6 made-up cannot run: it has five stages at most"),
              std::string::npos)
        << text;
}

TEST(MadeUpFamily, ProgramsOfFilesFindIt) {
    const auto families = table();
    const Target target = made_up_target();
    TileProgram program =
        lower(attention_of(), kPattern, KernelRole::kForward, target, shape_with(5));
    EXPECT_EQ(plan_kernel(program, target, families).family, &kMadeUp);
    program.stages = 6;
    EXPECT_EQ(why_not_program(program, target, families), "it has more than five stages");
    expect_error<UserError>([&] { plan_kernel(program, target, families); },
                            "attention_forward cannot run on sm_999x: it has more than five");
    program.stages = 5;
    expect_error<UserError>([&] { plan_kernel(program, target, kernel_families()); },
                            "with unit=wgmma, where sm_999x has kernels for unit=mma_sync");
}

#ifdef SPION_CUDA_BACKEND
TEST(MadeUpFamily, ItsConstantsAreEmitted) {
    const auto families = table();
    const Target target = made_up_target();
    const LayerPlan plan = plan_layer(attention_of(), kPattern, target, {}, families);
    const auto [program, kernel] = lower_launch(plan, plan.launches[0], kPattern);
    const std::string text = emit(program, kernel, target).text;
    EXPECT_NE(text.find("kMadeUpRegisters = 100"), std::string::npos) << text;
    EXPECT_NE(text.find("sm80/attention_forward.cuh"), std::string::npos) << text;
}

class LaunchingDevice : public test::FakeDevice {
  public:
    LaunchingDevice() : FakeDevice(made_up_target()) {}
    void launch(const LoadedKernel& /*kernel*/, const LaunchGeometry& geometry,
                const void* /*arguments*/, std::size_t /*bytes*/) override {
        launched.push_back(geometry);
    }
    std::vector<LaunchGeometry> launched;
};

TEST(MadeUpFamily, IsLoadedAndLaunchedAsPlanned) {
    const auto families = table();
    LaunchingDevice device;
    KernelCache cache{std::nullopt};
    const auto layers =
        compile_attention(attention_of(), {&kPattern, 1}, device, cache, {}, families);
    EXPECT_EQ(layers[0]->part(KernelRole::kForward).planned.family, &kMadeUp);
    SpionAttentionArguments arguments{};
    arguments.batch = 3;
    layers[0]->forward(arguments);
    ASSERT_EQ(device.launched.size(), 1U);
    EXPECT_EQ(device.launched[0].threads, kThreads);
    EXPECT_EQ(device.launched[0].shared_bytes, kShared);
    EXPECT_EQ(device.launched[0].work_items, 3 * 2 * 16);
}
#endif

}  // namespace
}  // namespace spion
